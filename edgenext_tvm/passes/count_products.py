"""Generated kernels state their multiply-adds, as the integer kernels do.

Before::

    @T.prim_func
    def island(...):                     # a matrix product of 64 x 24 by 24 x 96 inside

After::

    @T.prim_func
    def island(...):
        T.func_attr({"enx.macs": 147456})

Why here: last, when every function is TIR. A block counts that sums products of two tensors over a reduction axis:
convolutions, linear layers and attention products; sums of squares do not.

Leaves alone: integer kernels, which know their number.
"""

from __future__ import annotations

from math import prod

import tvm
from tvm import s_tir, tirx
from tvm.ir import TensorLoad
from tvm_ffi import structural_walk

from edgenext_tvm.kernels.base import kernel_of

MACS_ATTR = "enx.macs"


def count_products(mod: tvm.IRModule) -> tvm.IRModule:
    """Return the module whose generated functions carry their multiply-adds as the attribute enx.macs."""
    functions = {}
    for gv, func in mod.functions.items():
        if isinstance(func, tirx.PrimFunc) and kernel_of(func) is None and (macs := multiply_adds(func)):
            func = func.with_attr(MACS_ATTR, macs)
        functions[gv] = func
    return tvm.IRModule(functions)


def multiply_adds(func: tirx.PrimFunc) -> int:
    """Return the multiply-adds of one call of an unscheduled function."""
    blocks: list[s_tir.SBlock] = []
    structural_walk(func.body, (s_tir.SBlock, blocks.append))
    return sum(prod(int(v.dom.extent) for v in block.iter_vars) for block in blocks if _sums_products(block))


def _sums_products(block: s_tir.SBlock) -> bool:
    store = block.body
    if not isinstance(store, tirx.BufferStore) or not isinstance(store.value, tirx.Add):
        return False
    if all(int(v.iter_type) != int(tirx.IterVar.CommReduce) for v in block.iter_vars):
        return False
    return any(
        isinstance(term, tirx.Mul)
        and isinstance(term.a, TensorLoad)
        and isinstance(term.b, TensorLoad)
        and not term.a.source.same_as(term.b.source)
        for term in (store.value.a, store.value.b)
    )
