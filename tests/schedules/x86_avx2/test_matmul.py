from __future__ import annotations

import pytest

from edgenext_tvm.kernels import Conv2d, Dense
from edgenext_tvm.kernels.packing import packings_of
from edgenext_tvm.schedules.x86_avx2.matmul import choose_tile
from edgenext_tvm.schedules.x86_avx2.products import PAIRS, QUADS, Products, vectors_of

DENSE = [
    Dense(1, 1, 1),
    Dense(3, 17, 1, "residual"),
    Dense(13, 18, 10),
    Dense(49, 24, 17, "lut"),
    Dense(16, 6, 24, "residual"),
    Dense(64, 88, 264, "lut"),
    Dense(8, 23, 100, "residual"),
    Dense(1, 168, 1000, "none", "float32"),
    Dense(2, 9, 10, "none", "float32"),
    # rows that need two buffers on the stack, and an odd rest
    Dense(4, 1001, 20),
]
CONV2D = [
    Conv2d(1, 20, 12, 3, 17, 4, 4, 4, 4),
    Conv2d(2, 8, 8, 24, 88, 2, 2, 2, 2, epilogue="residual"),
    Conv2d(1, 9, 8, 3, 24, 3, 3, 2, 1, epilogue="lut"),
    Conv2d(3, 7, 7, 5, 40, 1, 3),
    Conv2d(1, 4, 4, 288, 8, 2, 2, 2, 2),
]


@pytest.mark.parametrize("kernel", DENSE + CONV2D, ids=lambda k: k.task_hint.replace(" ", "-"))
def test_products_give_the_twins_bits(check, kernel) -> None:
    check(kernel)


@pytest.mark.parametrize(
    "kernel", [Dense(24, 21, 72, "lut"), Conv2d(1, 8, 24, 6, 40, 2, 2, 2, 2)], ids=lambda kernel: kernel.kind
)
def test_points_of_the_space_give_the_twins_bits(check_points, kernel) -> None:
    check_points(kernel, 4)


@pytest.mark.parametrize(("products", "bias"), [(PAIRS, "padded_channels"), (QUADS, "bias_of_unsigned")])
def test_weights_bias_and_multipliers_are_packed(products: Products, bias: str) -> None:
    packed = products.packed(6, 20)
    assert [(p.kind, p.argument) for p, _ in packed] == [("dots", 1), (bias, 2), ("padded_channels", 3)]
    assert packed[0][1] == ((3, 1, -(-6 // products.group), 8, products.group), "int8")


def test_a_built_function_says_what_it_packs(space_of) -> None:
    assert [packing.argument for packing in packings_of(space_of(Dense(4, 6, 20)).at())] == [1, 2, 3]


@pytest.mark.parametrize("products", [PAIRS, QUADS], ids=lambda p: p.family)
@pytest.mark.parametrize("rows", [1, 49, 64, 97, 196, 4096])
@pytest.mark.parametrize("channels", [1, 24, 88, 672, 1000])
def test_tiles_divide_the_rows_and_fit_the_registers(products: Products, rows: int, channels: int) -> None:
    tile = choose_tile(rows, vectors_of(channels), products)
    assert rows % (tile.rows * tile.group) == 0
    assert tile.rows * tile.vectors <= products.sums
