"""The hand-picked schedule of every kernel kind: what runs before, or without, tuning."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tvm
from tvm import s_tir, tirx

from ..kernels import Depthwise, Kernel, XcaApply, XcaScores, kernel_of
from .arm64 import build_arm64
from .attention import schedule_xca_apply, schedule_xca_scores
from .depthwise import schedule_depthwise
from .generic import schedule_generic
from .matmul import schedule_matmul
from .rowwise import schedule_add, schedule_global_avg_pool, schedule_layer_norm, schedule_lut
from .vector_unit import vector_unit
from .x86 import build_x86

_ROWWISE = {
    "add": schedule_add,
    "conv2d": schedule_matmul,
    "dense": schedule_matmul,
    "global_avg_pool": schedule_global_avg_pool,
    "layer_norm": schedule_layer_norm,
    "lut": schedule_lut,
}

Builder = Callable[[Kernel, tirx.PrimFunc, frozenset[str]], "tirx.PrimFunc | None"]
"""(kernel, its unscheduled function, features) -> the function for them, or None where there is no special code."""

_BUILDERS: dict[str, tuple[Builder, ...]] = {"x86_64": (build_x86,), "aarch64": (build_arm64,)}


def schedule_kernel(func: tirx.PrimFunc, isa: str, features: Sequence[str] = ()) -> tirx.PrimFunc:
    """Return the same function scheduled for `isa`, attributes kept: "x86_64", "aarch64", "armv7" or "c" (C source).

    The result computes the same bits. Its body is one parallel loop, or has none. No internal buffer exceeds 1 KiB.
    A function without a kernel description gets a generic schedule. UserError if the instruction set is not known.
    With `features` (a board's cpu.features) the result may use those instructions, and may read constant arguments in
    another layout: `kernels.packing.packings_of` tells which.
    """
    unit = vector_unit(isa)
    kernel = kernel_of(func)
    if kernel is not None:
        for builder in _BUILDERS.get(isa, ()):
            if (built := builder(kernel, func, frozenset(features))) is not None:
                return built
    sch = s_tir.Schedule(tvm.IRModule({"main": func}))
    if kernel is None:
        schedule_generic(sch, unit)
    elif isinstance(kernel, Depthwise):
        schedule_depthwise(sch, kernel, unit)
    elif isinstance(kernel, XcaScores):
        schedule_xca_scores(sch, kernel, unit)
    elif isinstance(kernel, XcaApply):
        schedule_xca_apply(sch, kernel, unit)
    else:
        _ROWWISE[kernel.kind](sch, unit)
    return sch.mod["main"]
