"""The hand-picked schedule of every kernel kind: what runs before, or without, tuning."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tvm
from tvm import s_tir, tirx

from ..kernels import Conv2d, Dense, Depthwise, InvertedBottleneck, Kernel, XcaApply, XcaScores, kernel_of
from .arm64 import arm64_space
from .armv7 import armv7_space
from .attention import schedule_xca_apply, schedule_xca_scores
from .depthwise import depthwise_space
from .generic import schedule_generic
from .inverted_bottleneck import portable_space
from .matmul import matmul_space
from .rowwise import schedule_add, schedule_global_avg_pool, schedule_layer_norm, schedule_lut
from .space import Decisions, Space
from .vector_unit import VectorUnit, vector_unit
from .x86 import NEEDED as AVX512_VNNI
from .x86 import x86_space
from .x86_avx2 import NEEDED as AVX2
from .x86_avx2 import VNNI, x86_avx2_space

_ROWWISE = {
    "add": schedule_add,
    "global_avg_pool": schedule_global_avg_pool,
    "layer_norm": schedule_layer_norm,
    "lut": schedule_lut,
    "rescale": schedule_add,
}

Spaces = Callable[[Kernel, tirx.PrimFunc, frozenset[str]], "Space | None"]
"""(kernel, its unscheduled function, features) -> the space of its special code, or None where there is none."""

_SPECIAL: dict[str, tuple[Spaces, ...]] = {
    "x86_64": (x86_space, x86_avx2_space),
    "aarch64": (arm64_space,),
    "armv7": (armv7_space,),
}

_NEON, _DOTPROD = frozenset({"neon"}), frozenset({"neon", "dotprod"})
_LEVELS: dict[str, tuple[tuple[str, frozenset[str]], ...]] = {
    "x86_64": (
        ("avx512vnni", AVX512_VNNI),
        *(("avxvnni", AVX2 | vnni) for vnni in VNNI),
        ("avx2", AVX2),
        ("x86_64", frozenset()),
    ),
    "aarch64": (("dotprod", _DOTPROD), ("neon", _NEON), ("aarch64", frozenset())),
    "armv7": (("neon", _NEON), ("armv7", frozenset())),
}


def instruction_level(isa: str, features: Sequence[str]) -> str:
    """Return the name of the best instructions that `space_of` uses with `features`, such as "avx512vnni" or "neon".

    Processors of one level have the same spaces.
    """
    return next(name for name, needed in _LEVELS[isa] if needed <= set(features))


def space_of(func: tirx.PrimFunc, isa: str, features: Sequence[str] = ()) -> Space:
    """Return the design space of an unscheduled function: "x86_64", "aarch64", "armv7" or "c" (C source).

    Every point computes the same bits; its body is one parallel loop, or has none; no internal buffer exceeds 1 KiB
    unless code generation may hoist it. A function without a kernel description gets a generic schedule.
    UserError if the instruction set is not known. With `features` (a board's cpu.features) the points may use those
    instructions, and may read constant arguments in another layout: `kernels.packing.packings_of` tells which.
    """
    unit = vector_unit(isa)
    kernel = kernel_of(func)
    if kernel is not None:
        for special in _SPECIAL.get(isa, ()):
            if (space := special(kernel, func, frozenset(features))) is not None:
                return space
    if isinstance(kernel, Dense | Conv2d):
        return matmul_space(isa, kernel, func, unit)
    if isinstance(kernel, Depthwise):
        return depthwise_space(isa, kernel, func, unit)
    if isinstance(kernel, InvertedBottleneck):
        return portable_space(isa, kernel, func, unit)
    kind = kernel.kind if kernel is not None else "generic"
    return Space(f"{isa}.{kind}", lambda _: _portable(kernel, func, unit))


def schedule_kernel(
    func: tirx.PrimFunc, isa: str, features: Sequence[str] = (), decisions: Decisions | None = None
) -> tirx.PrimFunc:
    """Return `func` scheduled at a point of its space, by default the hand-picked one; attributes kept."""
    return space_of(func, isa, features).at(decisions)


def _portable(kernel: Kernel | None, func: tirx.PrimFunc, unit: VectorUnit) -> tirx.PrimFunc:
    sch = s_tir.Schedule(tvm.IRModule({"main": func}))
    if kernel is None:
        schedule_generic(sch, unit)
    elif isinstance(kernel, XcaScores):
        schedule_xca_scores(sch, kernel, unit)
    elif isinstance(kernel, XcaApply):
        schedule_xca_apply(sch, kernel, unit)
    else:
        _ROWWISE[kernel.kind](sch, unit)
    return sch.mod["main"]
