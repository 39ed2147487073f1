"""Concatenation along channels copies nothing: each part's kernel writes its channels of one buffer.

Before::

    a = R.call_tir(depthwise, (x, ...))            # int8 [1, 16, 16, 30]
    b = R.call_tir(depthwise, (y, ...))            # int8 [1, 16, 16, 30]
    lv = R.concat((a, b), axis=3)

After::

    buf = R.call_tir(depthwise_0_of_60, (x, ...))                     # writes channels 0..29 of [1, 16, 16, 60]
    lv = R.call_tir_inplace(depthwise_30_of_60, (y, ..., buf))        # writes channels 30..59 of the same memory

Why here: after the fusions, when every part is a kernel's result. Other readers of a part get a slice of the
buffer, which FoldSlices turns into an offset.

Leaves alone: concatenation along other axes than the last. A part that no kernel can write in place is copied.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import tvm
from tvm import relax

from edgenext_tvm.kernels.depthwise import Depthwise
from edgenext_tvm.kernels.lut import Lut
from edgenext_tvm.kernels.rescale import Rescale
from edgenext_tvm.kernels.wide import ACTIVATION_DTYPES
from edgenext_tvm.passes.channel_copy import channel_copy
from edgenext_tvm.passes.rewrite import Rewriter, bindings_of, op_name, shape_of


def write_concats_in_place(mod: tvm.IRModule) -> tvm.IRModule:
    """Return the module whose channel concatenations are made by the kernels of their parts."""
    return _ConcatWriter(mod).run()


@dataclass(frozen=True)
class _Slot:
    """Channels [offset, offset + width) of the buffer of one concatenation."""

    concat: relax.Var
    offset: int
    total: int


class _ConcatWriter(Rewriter):
    def __init__(self, mod: tvm.IRModule) -> None:
        super().__init__(mod)
        self.slots: dict[relax.Var, _Slot] = {}
        self.buffers: dict[relax.Var, relax.Expr] = {}
        old = dict(bindings_of(mod))
        for var, value in old.items():
            if op_name(value) == "concat" and _is_along_channels(value, var):
                self.assign_slots(var, value, old)

    def assign_slots(self, concat: relax.Var, value: relax.Call, old: dict[relax.Var, relax.Expr]) -> None:
        offset = 0
        for part in value.args[0].fields:
            writer = part
            while op_name(old.get(writer)) == "reshape" and shape_of(old[writer].args[0])[-1] == shape_of(part)[-1]:
                writer = old[writer].args[0]
            kernel = self.kernel_of_call(old.get(writer))
            writes_all = isinstance(kernel, Depthwise | Lut | Rescale) and kernel.y_channels == kernel.c
            if writes_all and writer not in self.slots:
                self.slots[writer] = _Slot(concat, offset, shape_of(concat)[-1])
            offset += shape_of(part)[-1]

    def rewrite(self, value: relax.Expr, var: relax.Var) -> relax.Expr | None:
        if var in self.slots:
            slot = self.slots[var]
            kernel = self.kernel_of_call(value)
            assert isinstance(kernel, Depthwise | Lut | Rescale)
            self.write(slot, kernel, list(value.args[1].fields))
            return self.slice_of(slot, shape_of(var))
        if op_name(value) == "concat" and _is_along_channels(value, var):
            return self.complete(value, var)
        return None

    def write(self, slot: _Slot, kernel: Depthwise | Lut | Rescale, operands: list[relax.Expr]) -> None:
        """Call `kernel` so that it writes into the slot; the first writer makes the buffer."""
        buffer = self.buffers.get(slot.concat)
        kernel = replace(kernel, y_channels=slot.total, y_offset=slot.offset, inplace=buffer is not None)
        if buffer is not None:
            operands = [*operands, self.reshape(buffer, kernel.output_types()[0][0])]
        self.buffers[slot.concat] = self.call_kernel(kernel, operands)

    def slice_of(self, slot: _Slot, shape: tuple[int, ...]) -> relax.Expr:
        buffer = self.reshape(self.buffers[slot.concat], (*shape[:-1], slot.total))
        last = len(shape) - 1
        return relax.op.strided_slice(buffer, [last], [slot.offset], [slot.offset + shape[-1]])

    def complete(self, value: relax.Call, var: relax.Var) -> relax.Expr:
        """Copy what no kernel wrote and return the buffer."""
        written = {slot.offset for slot in self.slots.values() if slot.concat.same_as(var)}
        offset = 0
        for part in value.args[0].fields:
            *rows, width = shape_of(part)
            if offset not in written:
                copy, parameters = channel_copy(prod(rows), width, str(var.ty.dtype))
                operands = [self.reshape(part, (copy.t, width)), *map(relax.const, parameters)]
                self.write(_Slot(var, offset, shape_of(var)[-1]), copy, operands)
            offset += width
        return self.reshape(self.buffers[var], shape_of(var))


def _is_along_channels(concat: relax.Call, var: relax.Var) -> bool:
    rank = len(shape_of(var))
    return str(var.ty.dtype) in ACTIVATION_DTYPES and int(concat.attrs.axis) % rank == rank - 1
