"""Kernels for x86 with AVX2 and, for products, AVX-VNNI: functions written with 256-bit vectors, 16 registers."""

from __future__ import annotations

from tvm import tirx

from ...kernels import Add, Conv2d, Dense, Depthwise, InvertedBottleneck, Kernel, LayerNorm, Lut, XcaApply, XcaScores
from ...kernels.window import needs_padding
from ..space import Space
from . import attention, depthwise
from .elementwise import build_add, build_lut
from .inverted_bottleneck import inverted_bottleneck_space
from .layer_norm import build_layer_norm
from .matmul import conv2d_space, dense_space
from .products import PAIRS, QUADS

NEEDED = frozenset({"avx2"})
"""Haswell, Zen and later; other processors take the portable schedules."""
VNNI = (frozenset({"avxvnni"}), frozenset({"avx512vnni", "avx512vl"}))
"""With one of these sets a processor has vpdpbusd on 256-bit vectors: Alder Lake and Zen 5, or Cascade Lake."""


def x86_avx2_space(kernel: Kernel, func: tirx.PrimFunc, features: frozenset[str]) -> Space | None:
    """Return the space of `func` for AVX2, or None if the feature is missing or this shape has no special code.

    There is none for wide tensors (int16).
    """
    if not features >= NEEDED or kernel.is_wide:
        return None
    products = QUADS if any(features >= needed for needed in VNNI) else PAIRS
    match kernel:
        case Dense():
            return dense_space(kernel, func, products)
        case Conv2d() if not needs_padding(kernel):
            return conv2d_space(kernel, func, products)
        case InvertedBottleneck():
            return inverted_bottleneck_space(kernel, func, products)
        case Depthwise() if depthwise.is_supported(kernel):
            return depthwise.depthwise_space(kernel, func)
        case LayerNorm():
            return Space("x86_avx2.layer_norm", lambda _: build_layer_norm(kernel, func))
        case XcaScores() if attention.is_supported(kernel):
            return Space("x86_avx2.xca_scores", lambda _: attention.build_xca_scores(kernel, func))
        case XcaApply() if attention.is_supported(kernel):
            return Space("x86_avx2.xca_apply", lambda _: attention.build_xca_apply(kernel, func))
        case Lut():
            return Space("x86_avx2.lut", lambda _: build_lut(kernel, func))
        case Add():
            return Space("x86_avx2.add", lambda _: build_add(kernel, func))
    return None
