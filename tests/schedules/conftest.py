"""Kernels of awkward shapes and the targets whose machine code the schedules are judged by."""

from __future__ import annotations

import pytest
from tvm.target import Target

from edgenext_tvm.kernels import (
    Add,
    Conv2d,
    Dense,
    Depthwise,
    GlobalAvgPool,
    InvertedBottleneck,
    Kernel,
    LayerNorm,
    Lut,
    Rescale,
    XcaApply,
    XcaScores,
)

AWKWARD: list[Kernel] = [
    Add(5, 3),
    Add(64, 30, 88, 0, 88, 30),
    Add(49, 100),
    Conv2d(1, 20, 12, 3, 17, 4, 4, 4, 4),
    Conv2d(1, 9, 7, 3, 8, 3, 3, 2, 2, 1, 1, 1, 1, epilogue="lut"),
    Conv2d(2, 8, 8, 24, 88, 2, 2, 2, 2, epilogue="residual"),
    Dense(1, 1, 1),
    Dense(3, 17, 1, "residual"),
    Dense(49, 24, 17, "lut"),
    Dense(64, 88, 352, "lut"),
    Dense(64, 100, 100, "residual"),
    Dense(1, 168, 1000, "none", "float32"),
    Depthwise(1, 5, 7, 1, 3, 3, 1, 1, 1, 1, 1, 1),
    Depthwise(1, 7, 5, 17, 5, 5, 2, 2, 2, 2, 2, 2, epilogue="lut"),
    Depthwise(1, 3, 5, 24, 9, 9, 1, 1, 4, 4, 4, 4),
    Depthwise(1, 8, 8, 100, 7, 7, 1, 1, 3, 3, 3, 3),
    Depthwise(2, 6, 4, 8, 3, 2),
    Depthwise(1, 2, 2, 3, 17, 61, 1, 1, 8, 30, 8, 30),
    Depthwise(1, 7, 5, 6, 3, 3, 1, 1, 1, 1, 1, 1, 9, 2, 11, 3, "residual", True),
    GlobalAvgPool(1, 1, 1, 3),
    GlobalAvgPool(2, 5, 7, 88),
    InvertedBottleneck(1, 3, 5, 1),
    InvertedBottleneck(21, 17, 36, 10, "residual"),
    InvertedBottleneck(40, 24, 96, 24, "residual"),
    LayerNorm(3, 1),
    LayerNorm(49, 17),
    LayerNorm(16, 168),
    LayerNorm(64, 100, affine=True),
    Lut(5, 3),
    Lut(64, 28, 88, 60, 88, 60, inplace=True),
    XcaApply(5, 12, 4),
    XcaApply(49, 88, 4),
    XcaApply(16, 34, 2),
    XcaScores(5, 12, 4),
    XcaScores(49, 88, 4),
    XcaScores(16, 34, 2),
]

WIDE: list[Kernel] = [
    Add(5, 3, a_dtype="int16", b_dtype="int16", out_dtype="int16"),
    Add(64, 30, 88, 0, 88, 30, b_dtype="int16"),
    Add(49, 100, out_dtype="int16"),
    Conv2d(1, 20, 12, 3, 17, 4, 4, 4, 4, out_dtype="int16"),
    Conv2d(2, 8, 8, 24, 88, 2, 2, 2, 2, 0, 0, 0, 0, "residual", "int16", "int16", "int16"),
    Dense(3, 17, 1, "residual", "int16"),
    Dense(49, 24, 17, "lut", x_dtype="int16"),
    Dense(64, 96, 24, "residual", "int16", "int8", "int16"),
    Dense(64, 100, 100, "residual", "int8", "int16", "int16"),
    Dense(1, 168, 1000, "none", "float32", "int16"),
    Depthwise(1, 7, 5, 17, 5, 5, 2, 2, 2, 2, 2, 2, epilogue="lut", x_dtype="int16"),
    Depthwise(1, 8, 8, 100, 7, 7, 1, 1, 3, 3, 3, 3, out_dtype="int16"),
    Depthwise(1, 7, 5, 6, 3, 3, 1, 1, 1, 1, 1, 1, 9, 2, 11, 3, "residual", True, "int16", "int16", "int16"),
    GlobalAvgPool(2, 5, 7, 88, out_dtype="int16"),
    GlobalAvgPool(1, 3, 1, 3, "int16", "int16"),
    LayerNorm(49, 17, False, "int16", "int16"),
    LayerNorm(16, 168, x_dtype="int16"),
    LayerNorm(64, 100, True, "int16", "int16"),
    Rescale(64, 28, x_channels=88, x_offset=60, y_channels=88, y_offset=60, inplace=True),
    Rescale(5, 3, "int16", "int8"),
    Rescale(49, 100, "int8", "int16"),
]
"""Kernels of wide tensors."""
AWKWARD += WIDE

TARGETS = {
    "znver4": ("x86_64", Target({"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": "znver4"})),
    "cortex-a72": (
        "aarch64",
        Target({"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a72", "mattr": ["+neon"]}),
    ),
    "cortex-a76": (
        "aarch64",
        Target({"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a76", "mattr": ["+neon", "+dotprod"]}),
    ),
    "cortex-a7": (
        "armv7",
        Target({"kind": "llvm", "mtriple": "armv7l-linux-gnueabihf", "mcpu": "cortex-a7", "mattr": ["+neon", "+vfp4"]}),
    ),
}


@pytest.fixture(params=TARGETS)
def isa_and_target(request: pytest.FixtureRequest) -> tuple[str, Target]:
    """Each instruction set with a processor to compile for."""
    return TARGETS[request.param]


@pytest.fixture(params=AWKWARD, ids=lambda kernel: kernel.task_hint.replace(" ", "-"))
def awkward_kernel(request: pytest.FixtureRequest) -> Kernel:
    """Each kernel of an awkward shape."""
    return request.param


@pytest.fixture
def awkward_kernels() -> list[Kernel]:
    """All kernels of awkward shapes."""
    return AWKWARD


@pytest.fixture
def targets() -> dict[str, tuple[str, Target]]:
    """Instruction set and target of each processor."""
    return TARGETS
