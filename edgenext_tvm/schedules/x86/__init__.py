"""Kernels for x86 with AVX-512 (VNNI, VBMI): functions written with vectors instead of scheduled loops."""

from __future__ import annotations

from tvm import tirx

from ...kernels import Conv2d, Dense, Depthwise, Kernel, LayerNorm, XcaApply, XcaScores
from ...kernels.window import needs_padding
from . import attention, depthwise
from .layer_norm import build_layer_norm
from .matmul import build_conv2d, build_dense

NEEDED = frozenset({"avx512f", "avx512bw", "avx512vl", "avx512vnni", "avx512vbmi"})
"""Ice Lake, Zen 4 and later; other processors take the portable schedules."""


def build_x86(kernel: Kernel, func: tirx.PrimFunc, features: frozenset[str]) -> tirx.PrimFunc | None:
    """Return `func` written for AVX-512, or None if a feature is missing or this shape has no special code."""
    if not features >= NEEDED:
        return None
    if isinstance(kernel, Dense):
        return build_dense(kernel, func)
    if isinstance(kernel, Conv2d) and not needs_padding(kernel):
        return build_conv2d(kernel, func)
    if isinstance(kernel, LayerNorm) and not kernel.affine:
        return build_layer_norm(kernel, func)
    if isinstance(kernel, Depthwise) and depthwise.is_supported(kernel):
        return depthwise.build_depthwise(kernel, func)
    if isinstance(kernel, XcaScores) and attention.is_supported(kernel):
        return attention.build_xca_scores(kernel, func)
    if isinstance(kernel, XcaApply) and attention.is_supported(kernel):
        return attention.build_xca_apply(kernel, func)
    return None
