"""Every point of every space gives the twins' bits, under qemu-aarch64; the spaces have a useful size."""

from __future__ import annotations

import random

import pytest

from edgenext_tvm.kernels import Conv2d, Dense, Depthwise, InvertedBottleneck, Kernel, LayerNorm, XcaApply, XcaScores
from edgenext_tvm.kernels.sample_inputs import PATTERNS
from edgenext_tvm.schedules import Space
from edgenext_tvm.schedules.arm64 import arm64_space

FEATURES = {"cortex-a72": frozenset({"neon"}), "cortex-a76": frozenset({"neon", "dotprod"})}
# each kind once, small: rows, channels and tokens that do not fill the last tile
SMALL: list[Kernel] = [
    Conv2d(1, 8, 8, 3, 24, 4, 4, 4, 4),
    Conv2d(1, 8, 8, 3, 24, 4, 4, 4, 4, x_dtype="int16"),
    Dense(16, 72, 96, "lut"),
    Dense(16, 72, 96, "lut", x_dtype="int16"),
    Dense(12, 24, 24, "residual"),
    Dense(12, 24, 24, "residual", "int16", "int16", "int16"),
    Depthwise(1, 6, 8, 20, 5, 5, 1, 1, 2, 2, 2, 2),
    Depthwise(1, 6, 8, 20, 5, 5, 1, 1, 2, 2, 2, 2, out_dtype="int16"),
    InvertedBottleneck(32, 24, 48, 24, "residual"),
    InvertedBottleneck(32, 24, 96, 24, "residual"),
    LayerNorm(16, 88),
    LayerNorm(16, 88, False, "int16", "int16"),
    XcaApply(16, 88, 4),
    XcaScores(8, 88, 4),
]
# shapes whose vectors, panels and windows end in every way that the emitters distinguish
ENDS: list[Kernel] = [
    Conv2d(1, 12, 8, 12, 24, 3, 2, 1, 2),
    Conv2d(1, 32, 24, 3, 24, 4, 4, 4, 4),
    Conv2d(1, 8, 16, 48, 88, 2, 2, 2, 2),
    Conv2d(2, 8, 8, 24, 88, 2, 2, 2, 2, epilogue="residual"),
    Conv2d(1, 12, 8, 12, 24, 3, 2, 1, 2, x_dtype="int16"),
    Conv2d(1, 32, 24, 3, 24, 4, 4, 4, 4, x_dtype="int16", out_dtype="int16"),
    Conv2d(2, 8, 8, 24, 88, 2, 2, 2, 2, 0, 0, 0, 0, "residual", "int8", "int16", "int16"),
    Dense(1, 20, 24, "lut"),
    Dense(5, 12, 8, "residual"),
    Dense(64, 100, 100, "residual"),
    Dense(28, 672, 168, "residual"),
    Dense(1, 168, 1000, "none", "float32"),
    Dense(1, 20, 24, "lut", x_dtype="int16"),
    Dense(5, 12, 8, "residual", "int16", "int16"),
    Dense(7, 4, 4, x_dtype="int16"),
    Dense(64, 100, 100, "residual", "int8", "int16", "int16"),
    Dense(28, 672, 168, "none", "int16", "int16"),
    Dense(1, 168, 1000, "none", "float32", "int16"),
    Depthwise(1, 9, 24, 16, 3, 3, 1, 1, 1, 1, 1, 1),
    Depthwise(1, 10, 33, 30, 5, 5, 2, 2, 2, 2, 2, 2, 88, 28, 60, 30, "none", True),
    Depthwise(1, 8, 8, 24, 9, 9, 1, 1, 4, 4, 4, 4, epilogue="residual"),
    Depthwise(1, 9, 24, 17, 3, 3, 1, 1, 1, 1, 1, 1, x_dtype="int16", out_dtype="int16"),
    Depthwise(1, 10, 33, 30, 5, 5, 2, 2, 2, 2, 2, 2, 88, 28, 60, 30, "none", True, "int8", "int16"),
    Depthwise(1, 8, 8, 24, 9, 9, 1, 1, 4, 4, 4, 4, 0, 0, 0, 0, "residual", False, "int16", "int8", "int16"),
    InvertedBottleneck(7, 20, 36, 12),
    InvertedBottleneck(7, 20, 80, 12),
    InvertedBottleneck(49, 88, 352, 88, "residual"),
    InvertedBottleneck(4, 304, 4864, 304),
    LayerNorm(12, 24),
    LayerNorm(8, 40, affine=True),
    LayerNorm(12, 24, x_dtype="int16"),
    LayerNorm(7, 8, out_dtype="int16"),
    LayerNorm(8, 40, True, "int16", "int16"),
    LayerNorm(4, 504, True, "int16"),
    XcaApply(49, 88, 4),
    XcaApply(8, 168, 4),
    XcaScores(20, 168, 4),
    XcaScores(16, 34, 2),
]


def space(kernel: Kernel, processor: str) -> Space:
    found = arm64_space(kernel, kernel.prim_func("k"), FEATURES[processor])
    assert found is not None, kernel
    return found


def sampled(kernel: Kernel, processor: str, count: int) -> list[tuple[Kernel, dict[str, int]]]:
    """`count` points in which every value of every knob occurs where the others allow it, and the default."""
    points = list(space(kernel, processor).points())
    random.Random(0).shuffle(points)
    seen: set[tuple[str, int]] = set()
    points.sort(key=lambda point: _is_old(point, seen))
    return [(kernel, space(kernel, processor).default), *((kernel, point) for point in points[:count])]


def _is_old(point: dict[str, int], seen: set[tuple[str, int]]) -> bool:
    old = seen.issuperset(point.items())
    seen.update(point.items())
    return old


@pytest.mark.parametrize("processor", FEATURES)
@pytest.mark.parametrize("kernel", [*SMALL, *ENDS], ids=lambda kernel: kernel.task_hint.replace(" ", "-"))
def test_the_hand_picked_point_is_one_of_a_few_hundred(kernel: Kernel, processor: str) -> None:
    found = space(kernel, processor)
    points = list(found.points())
    assert found.default in points
    assert 1 <= len(points) <= 500


@pytest.mark.parametrize(("kernel", "least"), [
    (Conv2d(1, 64, 64, 24, 48, 2, 2, 2, 2), 40),
    (Dense(256, 88, 352), 40),
    (Dense(256, 88, 352, x_dtype="int16"), 40),
    (Depthwise(1, 32, 32, 48, 5, 5, 1, 1, 2, 2, 2, 2), 10),
    (InvertedBottleneck(4096, 24, 96, 24, "residual"), 40),
    (LayerNorm(1024, 48), 8),
    (XcaApply(256, 88, 4), 10),
    (XcaScores(256, 88, 4), 8),
])  # fmt: skip
@pytest.mark.parametrize("processor", FEATURES)
def test_kernels_of_the_network_leave_much_to_choose(kernel: Kernel, least: int, processor: str) -> None:
    assert len(list(space(kernel, processor).points())) >= least


def test_no_two_points_of_a_product_give_the_same_code() -> None:
    found = space(Dense(16, 72, 96), "cortex-a72")
    points = [point for point in found.points() if point["rows"] == 4 and point["group"] == 1]
    assert len({found.at(point).script() for point in points}) == len(points) > 4


@pytest.mark.qemu
@pytest.mark.parametrize("processor", FEATURES)
def test_defaults_and_sampled_points_give_the_twins_bits(processor: str, wrong_points) -> None:
    cases = [case for kernel in SMALL for case in sampled(kernel, processor, 3)]
    assert wrong_points(processor, cases, ["random", "opposed"]) == []


@pytest.mark.qemu
@pytest.mark.parametrize("processor", FEATURES)
@pytest.mark.parametrize("weight", [-128, 127])
def test_wide_products_of_extremes_give_the_twins_bits(processor: str, weight: int, wrong_points) -> None:
    kernels = [
        Conv2d(1, 8, 8, 12, 8, 2, 2, 2, 2, x_dtype="int16", out_dtype="int16"),
        Dense(3, 20, 12, "none", "float32", "int16"),
        Dense(9, 72, 8, "none", "int16", "int16"),
    ]
    cases = [case for kernel in kernels for case in sampled(kernel, processor, 1)]
    assert wrong_points(processor, cases, ["lowest", "highest", "opposed"], weight) == []


@pytest.mark.slow
@pytest.mark.qemu
@pytest.mark.parametrize("processor", FEATURES)
def test_points_of_awkward_shapes_give_the_twins_bits(processor: str, wrong_points) -> None:
    cases = [case for kernel in [*SMALL, *ENDS] for case in sampled(kernel, processor, 12)]
    assert wrong_points(processor, cases, PATTERNS) == []
