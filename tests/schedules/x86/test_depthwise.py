from __future__ import annotations

import numpy as np
import pytest

from edgenext_tvm.kernels import Depthwise
from edgenext_tvm.schedules.x86.depthwise import (
    DepthwiseTaps,
    DepthwiseTile,
    build_depthwise,
    choose_tile,
    is_supported,
)

KERNELS = [
    Depthwise(1, 8, 8, 24, 3, 3, 1, 1, 1, 1, 1, 1),
    Depthwise(1, 4, 6, 16, 5, 5, 1, 1, 2, 2, 2, 2),
    Depthwise(1, 4, 8, 40, 7, 7, 1, 1, 3, 3, 3, 3),
    Depthwise(1, 2, 3, 24, 9, 9, 1, 1, 4, 4, 4, 4),
    Depthwise(1, 5, 7, 17, 3, 5, 1, 1, 1, 2, 1, 2, epilogue="lut"),
    Depthwise(2, 6, 4, 18, 3, 2),
    Depthwise(1, 7, 24, 20, 4, 3, 1, 1, 0, 2, 3, 0),
    Depthwise(1, 8, 8, 30, 3, 3, 1, 1, 1, 1, 1, 1, 88, 4, 88, 30, inplace=True),
    Depthwise(1, 5, 7, 17, 3, 5, 1, 1, 1, 2, 1, 2, out_dtype="int16"),
    Depthwise(1, 8, 8, 30, 3, 3, 1, 1, 1, 1, 1, 1, 88, 4, 88, 30, inplace=True, out_dtype="int16"),
]


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: k.task_hint.replace(" ", "-"))
def test_depthwise_gives_the_twins_bits(check, kernel: Depthwise) -> None:
    assert is_supported(kernel)
    check(kernel)


@pytest.mark.parametrize("tile", [DepthwiseTile(1, 1), DepthwiseTile(4, 2), DepthwiseTile(2, 8), DepthwiseTile(3, 4)])
def test_every_tile_gives_the_twins_bits(check, tile: DepthwiseTile) -> None:
    kernel = Depthwise(1, 12, 16, 16, 3, 3, 1, 1, 1, 1, 1, 1)
    check(kernel, build_depthwise(kernel, kernel.prim_func("kernel"), tile))


def test_strides_few_channels_and_residuals_are_left_to_the_portable_schedule() -> None:
    assert not is_supported(Depthwise(1, 8, 8, 16, 3, 3, 2, 2, 1, 1, 1, 1))
    assert not is_supported(Depthwise(1, 8, 8, 15, 3, 3))
    assert not is_supported(Depthwise(1, 8, 8, 16, 3, 3, epilogue="residual"))


def test_taps_are_shifted_by_the_output_row_they_serve() -> None:
    w = np.arange(1, 4, dtype=np.int8).reshape(3, 1, 1) * np.ones((1, 1, 20), np.int8)
    w[..., 16:] += 10
    packed = DepthwiseTaps(1, (1,), rows=2).pack(w)
    assert packed.shape == (2, 1, 1, 2, 16, 4)
    assert packed[0, 0, 0, 0, 0].tolist() == [1, 2, 3, 0]
    assert packed[0, 0, 0, 1, 0].tolist() == [0, 1, 2, 3]
    # the second vector starts at channel 20 - 16
    assert packed[1, 0, 0, 0, [0, 11, 12, 15], 0].tolist() == [1, 1, 11, 11]


def test_tiles_divide_the_output() -> None:
    for kernel in KERNELS:
        tile = choose_tile(kernel)
        oh, ow = kernel.out_hw
        assert oh % tile.rows == 0 and ow % tile.columns == 0
