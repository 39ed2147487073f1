"""Armv7 kernels written as NEON instructions: one module per kind, equal to the NumPy twins."""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx

from ...kernels import Conv2d, Dense, Depthwise, InvertedBottleneck, Kernel, LayerNorm, XcaApply, XcaScores
from ..space import Space
from .depthwise import depthwise_space
from .inverted_bottleneck import bottleneck_space
from .layer_norm import layer_norm_space
from .matmul import matmul_space
from .xca_apply import xca_apply_space
from .xca_scores import xca_scores_space

_SPACES: dict[type[Kernel], Callable[..., Space | None]] = {
    Conv2d: matmul_space,
    Dense: matmul_space,
    Depthwise: depthwise_space,
    InvertedBottleneck: bottleneck_space,
    LayerNorm: layer_norm_space,
    XcaApply: xca_apply_space,
    XcaScores: xca_scores_space,
}


def armv7_space(kernel: Kernel, func: tirx.PrimFunc, features: frozenset[str]) -> Space | None:
    """Return the kernel's space for NEON; None without that feature, or where there is no special code.

    There is none for wide tensors (int16).
    """
    space = _SPACES.get(type(kernel)) if "neon" in features and not kernel.is_wide else None
    return space(kernel, func) if space is not None else None
