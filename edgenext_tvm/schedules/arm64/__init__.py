"""AArch64 kernels written as NEON and dotprod instructions: one module per kind, equal to the NumPy twins."""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx

from ...kernels import Conv2d, Dense, Depthwise, Kernel, LayerNorm, XcaApply, XcaScores
from ..space import Space
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


def arm64_space(kernel: Kernel, func: tirx.PrimFunc, features: frozenset[str]) -> Space | None:
    """Return the kernel's space for NEON, and dotprod where `features` name it; None where there is no special code."""
    builder = _BUILDERS.get(type(kernel)) if "neon" in features else None
    if builder is None or builder(kernel, func, features) is None:
        return None
    family = "arm64_dotprod" if "dotprod" in features else "arm64_neon"
    return Space(f"{family}.{kernel.kind}", lambda _: builder(kernel, func, features))
