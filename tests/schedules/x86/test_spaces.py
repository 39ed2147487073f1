"""Every kernel's space on AVX-512: what may be chosen, and equal bits at every point that is tried."""

from __future__ import annotations

import random

import pytest

from edgenext_tvm.kernels import (
    Add,
    Conv2d,
    Dense,
    Depthwise,
    InvertedBottleneck,
    Kernel,
    LayerNorm,
    Lut,
    XcaApply,
    XcaScores,
)
from edgenext_tvm.schedules import Space, space_of
from edgenext_tvm.schedules.x86 import NEEDED

SMALL: list[tuple[Kernel, set[str]]] = [
    (Add(48, 30, 88, 0, 88, 30), {"rows"}),
    (Conv2d(1, 24, 24, 3, 40, 4, 4, 4, 4), {"rows", "vectors", "group"}),
    (Dense(24, 20, 72, "lut"), {"rows", "vectors", "group"}),
    (Depthwise(1, 6, 6, 16, 3, 3, 1, 1, 1, 1, 1, 1), {"rows", "columns"}),
    (InvertedBottleneck(48, 12, 80, 30, "residual"),
     {"tile_rows", "wide_rows", "wide_vectors", "narrow_rows", "narrow_vectors"}),
    (LayerNorm(48, 24), {"rows"}),
    (Lut(48, 28, 88, 60, 88, 60), {"rows"}),
    (XcaApply(48, 96, 4), {"rows", "group"}),
    (XcaScores(48, 96, 4), {"keys"}),
]  # fmt: skip
SAMPLES = 3


def vnni_space(kernel: Kernel) -> Space:
    return space_of(kernel.prim_func("kernel"), "x86_64", sorted(NEEDED))


@pytest.mark.parametrize(("kernel", "knobs"), SMALL, ids=lambda value: getattr(value, "kind", ""))
def test_the_knobs(kernel: Kernel, knobs: set[str]) -> None:
    space = vnni_space(kernel)
    assert space.family == f"x86_vnni.{kernel.kind}"
    assert {knob.name for knob in space.knobs} == knobs
    assert all(len(knob.values) > 1 for knob in space.knobs)


@pytest.mark.parametrize("kernel", [kernel for kernel, _ in SMALL], ids=lambda kernel: kernel.kind)
def test_sampled_points_give_the_twins_bits(check, kernel: Kernel) -> None:
    space = vnni_space(kernel)
    points = [point for point in space.points() if point != space.default]
    for point in random.Random(0).sample(points, min(SAMPLES, len(points))):
        check(kernel, space.at(point))


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [kernel for kernel, _ in SMALL], ids=lambda kernel: kernel.kind)
def test_every_point_gives_the_twins_bits(check, kernel: Kernel) -> None:
    space = vnni_space(kernel)
    for point in space.points():
        check(kernel, space.at(point))


def of_networks() -> list[Kernel]:
    """Shapes of the smallest and of a larger network, and of one whose side is no power of two."""
    kernels: list[Kernel] = [Add(1024, 48), Lut(1024, 48), Conv2d(1, 256, 256, 3, 24, 4, 4, 4, 4)]
    for side, c, k in ((64, 24, 3), (32, 96, 5), (14, 100, 7), (9, 168, 9), (1, 168, 1)):
        t, pad = side * side, k // 2
        kernels += [Depthwise(1, side, side, c, k, k, 1, 1, pad, pad, pad, pad), LayerNorm(t, c), Dense(t, c, 4 * c)]
        kernels += [XcaApply(t, c, 4), XcaScores(t, c, 4), InvertedBottleneck(t, c, 4 * c, c)]
    return kernels


@pytest.mark.parametrize("kernel", of_networks(), ids=lambda kernel: kernel.task_hint[:40])
def test_the_default_is_one_of_at_most_a_few_hundred_points(kernel: Kernel) -> None:
    space = vnni_space(kernel)
    points = list(space.points())
    assert space.default in points
    assert len(points) <= 500
