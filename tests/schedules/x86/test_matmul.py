from __future__ import annotations

import numpy as np
import pytest

from edgenext_tvm.kernels import Conv2d, Dense
from edgenext_tvm.kernels.packing import packings_of
from edgenext_tvm.schedules.x86.matmul import REGISTERS, Tile, build_dense, choose_tile, vectors_of

DENSE = [
    Dense(1, 1, 1),
    Dense(3, 17, 1, "residual"),
    Dense(13, 18, 10),
    Dense(49, 24, 17, "lut"),
    Dense(16, 6, 24, "residual"),
    Dense(64, 88, 264, "lut"),
    Dense(64, 100, 100, "residual"),
    Dense(8, 23, 168),
    Dense(1, 168, 1000, "none", "float32"),
    Dense(2, 9, 10, "none", "float32"),
    Dense(13, 18, 10, "none", "int16"),
    Dense(7, 20, 49, "residual", "int16"),
    Dense(24, 96, 33, "residual", "int16", "int8", "int16"),
    Dense(28, 72, 88, "residual", "int8", "int8", "int16"),
    Dense(1, 1, 1, x_dtype="int16"),
    Dense(13, 17, 24, "lut", x_dtype="int16"),
    Dense(24, 96, 33, "residual", "int16", "int16", "int16"),
    Dense(64, 88, 264, "residual", "int8", "int16"),
    Dense(2, 9, 1000, "none", "float32", "int16"),
]
CONV2D = [
    Conv2d(1, 20, 12, 3, 17, 4, 4, 4, 4),
    Conv2d(2, 8, 8, 24, 88, 2, 2, 2, 2, epilogue="residual"),
    Conv2d(1, 9, 8, 3, 24, 3, 3, 2, 1, epilogue="lut"),
    Conv2d(3, 7, 7, 5, 40, 1, 3),
    Conv2d(1, 20, 12, 3, 17, 4, 4, 4, 4, out_dtype="int16"),
    Conv2d(2, 8, 8, 24, 88, 2, 2, 2, 2, x_dtype="int16", out_dtype="int16"),
    Conv2d(1, 9, 8, 3, 24, 3, 3, 2, 1, epilogue="lut", x_dtype="int16"),
]


@pytest.mark.parametrize("kernel", DENSE + CONV2D, ids=lambda k: k.task_hint.replace(" ", "-"))
def test_products_give_the_twins_bits(check, kernel) -> None:
    check(kernel)


@pytest.mark.parametrize("tile", [Tile(1, 1, 1), Tile(6, 4, 2), Tile(4, 2, 3), Tile(12, 1, 1)])
def test_every_tile_gives_the_twins_bits(check, tile: Tile) -> None:
    kernel = Dense(24, 20, 72, "lut")
    check(kernel, build_dense(kernel, kernel.prim_func("kernel"), tile))


def test_weights_bias_and_multipliers_are_packed() -> None:
    kernel = Dense(4, 6, 20)
    packings = packings_of(build_dense(kernel, kernel.prim_func("kernel")))
    assert [(p.kind, p.argument) for p in packings] == [("dots", 1), ("bias_of_unsigned", 2), ("padded_channels", 3)]


def test_wide_inputs_meet_weights_of_their_own_width() -> None:
    kernel = Dense(4, 7, 20, x_dtype="int16")
    func = build_dense(kernel, kernel.prim_func("kernel"))
    weights, *others = packings_of(func)
    assert [(p.kind, p.argument) for p in others] == [("padded_channels", 2), ("padded_channels", 3)]
    packed = weights.pack(np.arange(-70, 70, dtype=np.int8).reshape(7, 20))
    assert (packed.shape, packed.dtype) == ((2, 1, 4, 16, 2), np.int16)
    # channel 19 is the fourth of the second vector; the input's last group is half filled
    assert packed[1, 0, 0, 3].tolist() == [-51, -31] and packed[1, 0, 3, 3].tolist() == [69, 0]
    assert not packed[1, 0, :, 4:].any()


@pytest.mark.parametrize("rows", [1, 49, 64, 97, 196, 4096])
@pytest.mark.parametrize("channels", [1, 24, 88, 672, 1000])
def test_tiles_divide_the_rows_and_fit_the_registers(rows: int, channels: int) -> None:
    tile = choose_tile(rows, vectors_of(channels))
    assert rows % (tile.rows * tile.group) == 0
    assert tile.rows * tile.vectors <= REGISTERS
