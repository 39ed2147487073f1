from __future__ import annotations

import numpy as np
import pytest

from edgenext_tvm.kernels import Conv2d
from edgenext_tvm.kernels.window import needs_padding, output_extent, padded_taps


@pytest.mark.parametrize(
    ("kernel", "extent", "padding"),
    [
        (Conv2d(1, 8, 8, 1, 1, 4, 4, 4, 4), (2, 2), False),
        (Conv2d(1, 9, 11, 1, 1, 4, 4, 4, 4), (2, 2), False),
        (Conv2d(1, 5, 5, 1, 1, 3, 3, 1, 1, 1, 1, 1, 1), (5, 5), True),
        (Conv2d(1, 5, 5, 1, 1, 3, 3, 1, 1, 0, 0, 1, 0), (4, 3), True),
        # A bottom border that no window reaches is no padding.
        (Conv2d(1, 4, 4, 1, 1, 2, 2, 2, 2, 0, 0, 1, 1), (2, 2), False),
    ],
)
def test_output_extent_and_padding(kernel: Conv2d, extent: tuple[int, int], padding: bool) -> None:
    assert output_extent(kernel) == extent
    assert needs_padding(kernel) is padding


def test_taps_of_a_wide_image_are_wide() -> None:
    kernel = Conv2d(1, 1, 2, 1, 1, 3, 3, 1, 1, 1, 1, 1, 1, x_dtype="int16")
    x = np.array([500, 600], np.int16).reshape(1, 1, 2, 1)
    taps = {(kh, kw): tap.reshape(-1).tolist() for kh, kw, tap in padded_taps(kernel, x, -2000)}
    assert taps[1, 0] == [-2000, 500]


def test_taps_outside_the_image_are_zero_points() -> None:
    kernel = Conv2d(1, 1, 2, 1, 1, 3, 3, 1, 1, 1, 1, 1, 1)
    x = np.array([5, 6], np.int8).reshape(1, 1, 2, 1)
    taps = {(kh, kw): tap.reshape(-1).tolist() for kh, kw, tap in padded_taps(kernel, x, -3)}
    assert taps[0, 0] == [-3, -3]
    assert taps[1, 0] == [-3, 5]
    assert taps[1, 1] == [5, 6]
    assert taps[1, 2] == [6, -3]
