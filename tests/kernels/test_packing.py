from __future__ import annotations

import numpy as np
from tvm import tirx

from edgenext_tvm.kernels import Dense
from edgenext_tvm.kernels.packing import (
    BiasOfUnsigned,
    PackedDots,
    PaddedChannels,
    pack_arguments,
    packings_of,
    with_packings,
)


def test_packings_travel_with_the_function():
    packings = (PackedDots(1, (1,), lanes=16, group=4), BiasOfUnsigned(2, (2, 1), lanes=16))
    func = with_packings(Dense(1, 4, 4).prim_func("k"), packings)
    assert packings_of(func) == packings
    assert packings_of(Dense(1, 4, 4).prim_func("k")) == ()
    assert isinstance(func, tirx.PrimFunc)


def test_dots_hold_each_channels_groups_of_rows_side_by_side():
    w = np.arange(5 * 3, dtype=np.int8).reshape(5, 3)
    packed = PackedDots(1, (1,), lanes=2, group=4).pack(w)
    assert packed.shape == (2, 1, 2, 2, 4)
    assert packed[0, 0, 0].tolist() == [[0, 3, 6, 9], [1, 4, 7, 10]]
    assert packed[0, 0, 1].tolist() == [[12, 0, 0, 0], [13, 0, 0, 0]]
    assert packed[1, 0].tolist() == [[[2, 5, 8, 11], [0] * 4], [[14, 0, 0, 0], [0] * 4]]


def test_each_segment_of_dots_is_padded_alone():
    w = np.arange(1, 7, dtype=np.int8).reshape(2, 3, 1)
    packed = PackedDots(1, (1,), lanes=1, group=4, segment=3).pack(w)
    assert packed.tolist() == [[[[[1, 2, 3, 0]]], [[[4, 5, 6, 0]]]]]


def test_sums_over_shifted_inputs_come_out_right():
    rng = np.random.default_rng(0)
    x, w = rng.integers(-128, 128, (6, 5), dtype=np.int8), rng.integers(-127, 128, (5, 3), dtype=np.int8)
    bias = rng.integers(-1000, 1000, 3, dtype=np.int32)
    packed = BiasOfUnsigned(2, (2, 1), lanes=4).pack(bias, w)
    assert packed.shape == (4,) and packed[3] == 0
    shifted = (x.astype(np.int32) + 128) @ w.astype(np.int32) + packed[:3]
    np.testing.assert_array_equal(shifted, x.astype(np.int32) @ w.astype(np.int32) + bias)


def test_only_packed_arguments_change():
    func = with_packings(Dense(1, 4, 4).prim_func("k"), [PaddedChannels(3, (3,), lanes=8)])
    arrays = [np.zeros(1), np.ones(1), np.ones(1), np.arange(4, dtype=np.float32), np.zeros(2)]
    packed = pack_arguments(func, arrays)
    assert packed[3].tolist() == [0, 1, 2, 3, 0, 0, 0, 0]
    assert all(packed[i] is arrays[i] for i in (0, 1, 2, 4))
