"""Kernels for x86 with AVX-512 (VNNI, VBMI): functions written with vectors instead of scheduled loops."""

from __future__ import annotations

from tvm import tirx

from ...kernels import Add, Conv2d, Dense, Depthwise, Kernel, LayerNorm, Lut, XcaApply, XcaScores
from ...kernels.window import needs_padding
from . import attention, depthwise
from .elementwise import build_add, build_lut
from .layer_norm import build_layer_norm
from .matmul import build_conv2d, build_dense

NEEDED = frozenset({"avx512f", "avx512bw", "avx512vl", "avx512vnni", "avx512vbmi"})
"""Ice Lake, Zen 4 and later; other processors take the portable schedules."""


def build_x86(kernel: Kernel, func: tirx.PrimFunc, features: frozenset[str]) -> tirx.PrimFunc | None:
    """Return `func` written for AVX-512, or None if a feature is missing or this shape has no special code."""
    if not features >= NEEDED:
        return None
    match kernel:
        case Dense():
            return build_dense(kernel, func)
        case Conv2d() if not needs_padding(kernel):
            return build_conv2d(kernel, func)
        case Depthwise() if depthwise.is_supported(kernel):
            return depthwise.build_depthwise(kernel, func)
        case LayerNorm():
            return build_layer_norm(kernel, func)
        case XcaScores() if attention.is_supported(kernel):
            return attention.build_xca_scores(kernel, func)
        case XcaApply() if attention.is_supported(kernel):
            return attention.build_xca_apply(kernel, func)
        case Lut():
            return build_lut(kernel, func)
        case Add():
            return build_add(kernel, func)
    return None
