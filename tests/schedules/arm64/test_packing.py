"""Packed weights element by element."""

from __future__ import annotations

import numpy as np
import pytest

from edgenext_tvm.errors import UserError
from edgenext_tvm.schedules.arm64.packing import CentredBias, PackedPairs, PackedQuads, WidenedTaps


@pytest.mark.parametrize(
    ("k", "co", "lanes", "segment"), [(24, 8, 8, 0), (12, 16, 8, 0), (32, 8, 4, 16), (20, 8, 8, 0)]
)
def test_eight_rows_of_two_channels_fill_sixteen_bytes(k: int, co: int, lanes: int, segment: int) -> None:
    w = np.random.default_rng(0).integers(-127, 128, (k, co)).astype(np.int8)
    length = segment or k
    packed = PackedPairs(1, (1,), lanes, segment).pack(w)
    assert packed.shape == (co // lanes, k // length, -(-length // 8), lanes // 2, 16)
    expected = np.zeros_like(packed)
    for row in range(k):
        for channel in range(co):
            part, r = divmod(row, length)
            byte = r % 8 // 4 * 8 + channel % 2 * 4 + r % 4
            expected[channel // lanes, part, r // 8, channel % lanes // 2, byte] = w[row, channel]
    np.testing.assert_array_equal(packed, expected)


@pytest.mark.parametrize(
    ("k", "co", "lanes", "segment"), [(24, 8, 8, 0), (12, 16, 8, 0), (32, 8, 4, 16), (20, 8, 8, 0)]
)
def test_four_rows_of_four_channels_fill_sixteen_bytes(k: int, co: int, lanes: int, segment: int) -> None:
    w = np.random.default_rng(0).integers(-127, 128, (k, co)).astype(np.int8)
    length = segment or k
    packed = PackedQuads(1, (1,), lanes, segment).pack(w)
    assert packed.shape == (co // lanes, k // length, 2 * -(-length // 8), lanes // 4, 16)
    expected = np.zeros_like(packed)
    for row in range(k):
        for channel in range(co):
            part, r = divmod(row, length)
            byte = r % 4 // 2 * 8 + channel % 4 * 2 + r % 2
            expected[channel // lanes, part, r // 4, channel % lanes // 4, byte] = w[row, channel]
    np.testing.assert_array_equal(packed, expected)


def test_rows_two_apart_must_not_both_be_lowest_in_quads() -> None:
    w = np.zeros((16, 4), np.int8)
    w[[0, 1, 4], 1] = -128
    assert (PackedQuads(1, (1,), 4).pack(w) == -128).sum() == 3
    w[[2, 6], 1] = -128
    with pytest.raises(UserError, match="^2 pairs of weights are both -128 where their products with -128"):
        PackedQuads(1, (1,), 4).pack(w)


def test_taps_keep_their_values_as_int16() -> None:
    w = np.arange(-127, 128, dtype=np.int8).reshape(5, 3, 17)
    packed = WidenedTaps(1, (1,)).pack(w)
    assert packed.dtype == np.int16
    np.testing.assert_array_equal(packed, w)


def test_a_centred_bias_makes_up_for_the_zero_point() -> None:
    rng = np.random.default_rng(1)
    w, x = rng.integers(-127, 128, (3, 3, 8)).astype(np.int8), rng.integers(-128, 128, (3, 3, 8))
    bias, qp = rng.integers(-999, 999, 8).astype(np.int32), np.array([-77, 5], np.int32)
    centred = CentredBias(2, (2, 1, 4)).pack(bias, w, qp)
    wide = w.astype(np.int32)
    np.testing.assert_array_equal(centred + ((x + 77) * wide).sum((0, 1)), bias + (x * wide).sum((0, 1)))


def test_a_pair_of_lowest_weights_that_16_bits_cannot_sum_is_refused() -> None:
    w = np.zeros((16, 4), np.int8)
    w[[2, 6], 1] = -128  # rows r and r + 4 of eight share a 16-bit sum
    message = (
        "1 pairs of weights are both -128 where their products with -128 are added in 16 bits, which hold at most "
        "32767; quantize weights symmetrically to [-127, 127], or choose a board whose core has dotprod"
    )
    with pytest.raises(UserError) as error:
        PackedPairs(1, (1,), 4).pack(w)
    assert str(error.value) == message


def test_single_lowest_weights_are_packed() -> None:
    w = np.zeros((16, 4), np.int8)
    w[[2, 3, 10], 1] = -128
    w[6, 2] = -128
    assert (PackedPairs(1, (1,), 4).pack(w) == -128).sum() == 4
