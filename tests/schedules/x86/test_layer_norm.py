from __future__ import annotations

import numpy as np
import pytest

from edgenext_tvm.kernels import LayerNorm
from edgenext_tvm.schedules.x86.layer_norm import WrappedChannels


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize(
    ("t", "c"), [(1, 168), (3, 1), (49, 17), (30, 6), (14, 8), (16, 64), (64, 88), (32, 24), (5, 700)]
)
def test_layer_norm_gives_the_twins_bits(check, t: int, c: int, affine: bool) -> None:
    check(LayerNorm(t, c, affine))


@pytest.mark.parametrize(("x_dtype", "out_dtype"), [("int16", "int8"), ("int8", "int16"), ("int16", "int16")])
@pytest.mark.parametrize(("t", "c"), [(1, 168), (3, 1), (49, 17), (14, 8), (16, 64), (64, 88), (5, 511)])
def test_wide_layer_norm_gives_the_twins_bits(check, t: int, c: int, x_dtype: str, out_dtype: str) -> None:
    check(LayerNorm(t, c, t % 2 == 0, x_dtype, out_dtype))


@pytest.mark.parametrize(("c", "expected"), [(3, [0, 1, 2, 0, 1, 2, 0]), (6, [0, 1, 2, 3, 4, 5, 0, 1, 2, 3])])
def test_channels_go_on_over_the_end_of_a_row(c: int, expected: list[int]) -> None:
    packed = WrappedChannels(3, (3,), 4).pack(np.arange(c, dtype=np.int32))
    np.testing.assert_array_equal(packed, expected)
