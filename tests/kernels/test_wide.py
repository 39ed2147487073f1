"""The bounds that the kernels of wide tensors rely on, from the grid's own figures."""

from __future__ import annotations

from edgenext_tvm.kernels.requantize import FIXED_LIMIT
from edgenext_tvm.kernels.wide import QRANGE, WIDE_MAX_CHANNELS, WIDE_QMAX, WIDE_QMIN, levels


def test_a_wide_grid_is_16_times_finer_than_int8() -> None:
    assert levels("int16") == 16 * levels("int8") == WIDE_QMAX - WIDE_QMIN + 1
    assert QRANGE["int16"] == (WIDE_QMIN, WIDE_QMAX)


def test_int32_holds_a_sum_of_8256_products() -> None:
    assert 8256 * -WIDE_QMIN * 127 < 2**31 <= 8257 * -WIDE_QMIN * 127


def test_int32_holds_the_squares_of_a_row() -> None:
    assert WIDE_MAX_CHANNELS * WIDE_QMIN**2 < 2**31 <= (WIDE_MAX_CHANNELS + 1) * WIDE_QMIN**2


def test_a_range_seen_from_any_zero_point_is_rounded_exactly() -> None:
    assert levels("int16") < FIXED_LIMIT
