from __future__ import annotations

import random

import pytest
from tvm.target import Target

from edgenext_tvm.codegen.plain_c import lower_kernel
from edgenext_tvm.kernels import InvertedBottleneck
from edgenext_tvm.kernels.packing import packings_of
from edgenext_tvm.schedules.x86.inverted_bottleneck import BottleneckTile, build_inverted_bottleneck
from edgenext_tvm.schedules.x86.inverted_bottleneck import inverted_bottleneck_space as space_of

KERNELS = [
    InvertedBottleneck(1, 1, 1, 1),
    InvertedBottleneck(21, 17, 66, 10, "residual"),
    InvertedBottleneck(64, 24, 96, 24, "residual"),
    InvertedBottleneck(97, 6, 40, 33),
    InvertedBottleneck(196, 100, 200, 100, "residual"),
]


def space(kernel: InvertedBottleneck):
    return space_of(kernel, kernel.prim_func("kernel"))


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: k.task_hint.replace(" ", "-"))
def test_bottlenecks_give_the_twins_bits(check, kernel: InvertedBottleneck) -> None:
    check(kernel)


def test_sampled_points_give_the_twins_bits(check) -> None:
    kernel = InvertedBottleneck(96, 20, 72, 40, "residual")
    points = list(space(kernel).points())
    for point in random.Random(0).sample(points, 3):
        check(kernel, space(kernel).at(point))


@pytest.mark.parametrize("t", [1, 2, 7, 49, 64, 97, 182, 196, 256, 1456, 3136, 4096, 9216])
@pytest.mark.parametrize("widths", [(24, 96), (48, 192), (80, 320), (88, 352), (100, 400), (584, 2336)])
def test_the_default_is_one_of_a_few_hundred_points(t: int, widths: tuple[int, int]) -> None:
    kernel = InvertedBottleneck(t, *widths, widths[0], "residual")
    points = list(space(kernel).points())
    assert space(kernel).default in points
    assert len(points) <= 700


def test_each_product_has_its_own_tile(check) -> None:
    kernel = InvertedBottleneck(48, 12, 80, 30)
    check(kernel, build_inverted_bottleneck(kernel, kernel.prim_func("kernel"), BottleneckTile(6, 2, 4, 3, 1)))


def test_both_products_are_packed() -> None:
    kernel = InvertedBottleneck(8, 6, 24, 6)
    packed = {p.argument: p.kind for p in packings_of(space(kernel).at())}
    dots = ["dots", "bias_of_unsigned", "padded_channels"]
    assert packed == dict(zip((1, 2, 3, 6, 7, 8), dots * 2, strict=True))


def test_the_arena_holds_a_few_hidden_rows_per_iteration() -> None:
    kernel = InvertedBottleneck(4096, 24, 96, 24, "residual")
    lowered = lower_kernel(space(kernel).at(), "k", Target({"kind": "llvm", "mcpu": "znver4"}), [13])
    assert lowered.extent == 8
    assert sum(lowered.hoisted_bytes) <= 64 * 1024
