"""AArch64 kernels written as NEON and dotprod instructions: one module per kind, each proven equal to the NumPy twins."""

from __future__ import annotations

from tvm import tirx

from ...kernels import Conv2d, Dense, Kernel
from .matmul import build_matmul


def build_arm64(kernel: Kernel, func: tirx.PrimFunc, features: frozenset[str]) -> tirx.PrimFunc | None:
    """Return the kernel's function for NEON, and dotprod where `features` name it; None where there is none."""
    if "neon" not in features:
        return None
    if isinstance(kernel, Dense | Conv2d):
        return build_matmul(kernel, func, features)
    return None
