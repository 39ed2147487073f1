"""AArch64 kernels written as NEON and dotprod instructions: one module per kind, equal to the NumPy twins."""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx

from ...kernels import Conv2d, Dense, Depthwise, Kernel, LayerNorm, XcaApply, XcaScores
from .depthwise import build_depthwise
from .layer_norm import build_layer_norm
from .matmul import build_matmul
from .xca_apply import build_xca_apply
from .xca_scores import build_xca_scores

_BUILDERS: dict[type[Kernel], Callable[..., tirx.PrimFunc | None]] = {
    Conv2d: build_matmul,
    Dense: build_matmul,
    Depthwise: build_depthwise,
    LayerNorm: build_layer_norm,
    XcaApply: build_xca_apply,
    XcaScores: build_xca_scores,
}


def build_arm64(kernel: Kernel, func: tirx.PrimFunc, features: frozenset[str]) -> tirx.PrimFunc | None:
    """Return the kernel's function for NEON, and dotprod where `features` name it; None where there is none."""
    builder = _BUILDERS.get(type(kernel)) if "neon" in features else None
    return None if builder is None else builder(kernel, func, features)
