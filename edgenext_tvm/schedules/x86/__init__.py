"""Kernels for x86 with AVX-512 (VNNI, VBMI): functions written with vectors instead of scheduled loops."""

from __future__ import annotations

from tvm import tirx

from ...kernels import Add, Conv2d, Dense, Depthwise, InvertedBottleneck, Kernel, LayerNorm, Lut, XcaApply, XcaScores
from ...kernels.window import needs_padding
from ..space import Space
from . import attention, depthwise
from .elementwise import elementwise_space
from .inverted_bottleneck import inverted_bottleneck_space
from .layer_norm import layer_norm_space
from .matmul import conv2d_space, dense_space

NEEDED = frozenset({"avx512f", "avx512bw", "avx512vl", "avx512vnni", "avx512vbmi"})
"""Ice Lake, Zen 4 and later; other processors take AVX2's kernels, or the portable schedules."""


def x86_space(kernel: Kernel, func: tirx.PrimFunc, features: frozenset[str]) -> Space | None:
    """Return the space of `func` for AVX-512, or None if a feature is missing or this shape has no special code.

    Of wide tensors (int16) products, additions, layer norms and what a depthwise convolution writes have any.
    """
    if not features >= NEEDED:
        return None
    takes_wide = isinstance(kernel, Add | Conv2d | Dense | LayerNorm)
    takes_wide |= isinstance(kernel, Depthwise) and not kernel.multiplies_wide
    if kernel.is_wide and not takes_wide:
        return None
    match kernel:
        case Dense():
            return dense_space(kernel, func)
        case Conv2d() if not needs_padding(kernel):
            return conv2d_space(kernel, func)
        case Depthwise() if depthwise.is_supported(kernel):
            return depthwise.depthwise_space(kernel, func)
        case InvertedBottleneck():
            return inverted_bottleneck_space(kernel, func)
        case LayerNorm():
            return layer_norm_space(kernel, func)
        case XcaScores() if attention.is_supported(kernel):
            return attention.xca_scores_space(kernel, func)
        case XcaApply() if attention.is_supported(kernel):
            return attention.xca_apply_space(kernel, func)
        case Add() | Lut():
            return elementwise_space(kernel, func)
    return None
