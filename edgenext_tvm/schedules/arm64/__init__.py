"""AArch64 kernels written as NEON and dotprod instructions: one module per kind, equal to the NumPy twins."""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx

from ...kernels import Conv2d, Dense, Depthwise, InvertedBottleneck, Kernel, LayerNorm, XcaApply, XcaScores
from ..space import Space
from .depthwise import depthwise_space
from .inverted_bottleneck import inverted_bottleneck_space
from .layer_norm import layer_norm_space
from .matmul import matmul_space
from .xca_apply import xca_apply_space
from .xca_scores import xca_scores_space

_SPACES: dict[type[Kernel], Callable[..., Space | None]] = {
    Conv2d: matmul_space,
    Dense: matmul_space,
    Depthwise: depthwise_space,
    InvertedBottleneck: inverted_bottleneck_space,
    LayerNorm: layer_norm_space,
    XcaApply: xca_apply_space,
    XcaScores: xca_scores_space,
}


def arm64_space(kernel: Kernel, func: tirx.PrimFunc, features: frozenset[str]) -> Space | None:
    """Return the kernel's space for NEON, and dotprod where `features` name it; None where there is no special code."""
    space = _SPACES.get(type(kernel)) if "neon" in features else None
    family = "arm64_dotprod" if "dotprod" in features else "arm64_neon"
    return space(kernel, func, features, f"{family}.{kernel.kind}") if space is not None else None
