from __future__ import annotations

import pytest

from edgenext_tvm.kernels import InvertedBottleneck
from edgenext_tvm.schedules.x86_avx2.inverted_bottleneck import choose_bottleneck_tile
from edgenext_tvm.schedules.x86_avx2.products import PAIRS, QUADS

KERNELS = [
    InvertedBottleneck(3, 5, 7, 2),
    InvertedBottleneck(16, 24, 96, 24, "residual"),
    InvertedBottleneck(49, 18, 71, 19, "residual"),
    InvertedBottleneck(8, 100, 1001, 9),
]


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: k.task_hint.replace(" ", "-"))
def test_bottlenecks_give_the_twins_bits(check, kernel: InvertedBottleneck) -> None:
    check(kernel)


def test_points_of_the_space_give_the_twins_bits(check_points) -> None:
    check_points(InvertedBottleneck(24, 20, 50, 28, "residual"), 3)


@pytest.mark.parametrize("products", [PAIRS, QUADS], ids=lambda p: p.family)
def test_tiles_divide_the_rows_and_fit_the_registers(products) -> None:
    for kernel in [*KERNELS, InvertedBottleneck(4096, 24, 96, 24, "residual")]:
        tile = choose_bottleneck_tile(kernel, products)
        assert kernel.t % (tile.rows * tile.chunks) == 0
        assert tile.rows * max(tile.widen, tile.narrow) <= products.sums
