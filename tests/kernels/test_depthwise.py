from __future__ import annotations

import numpy as np
import pytest

from edgenext_tvm.kernels import Depthwise
from edgenext_tvm.kernels.qparams import dense_params
from edgenext_tvm.kernels.sample_inputs import sample_inputs
from edgenext_tvm.kernels.wide import QRANGE, levels

CASES = [
    Depthwise(1, 5, 7, 1, 3, 3, 1, 1, 1, 1, 1, 1),
    Depthwise(1, 7, 5, 17, 5, 5, 2, 2, 2, 2, 2, 2, epilogue="lut"),
    Depthwise(1, 3, 5, 24, 9, 9, 1, 1, 4, 4, 4, 4),
    Depthwise(2, 6, 4, 8, 3, 2),
    Depthwise(1, 7, 5, 6, 3, 3, 1, 1, 1, 1, 1, 1, 9, 2, 11, 3, "residual", True),
    Depthwise(1, 7, 5, 17, 5, 5, 2, 2, 2, 2, 2, 2, out_dtype="int16"),
    Depthwise(1, 5, 7, 24, 3, 3, 1, 1, 1, 1, 1, 1, 30, 4, x_dtype="int16"),
    Depthwise(1, 5, 7, 24, 3, 3, 1, 1, 1, 1, 1, 1, epilogue="lut", x_dtype="int16"),
    Depthwise(1, 7, 5, 6, 3, 3, 1, 1, 1, 1, 1, 1, 9, 2, 11, 3, "residual", True, "int16", "int16", "int16"),
]


@pytest.mark.parametrize("kernel", CASES, ids=lambda kernel: kernel.task_hint)
def test_tir_gives_the_twins_bits(kernel: Depthwise, assert_twin_matches) -> None:
    assert_twin_matches(kernel)


@pytest.mark.parametrize("dtype", QRANGE)
def test_twin_is_the_real_convolution(dtype: str, assert_within_one_level) -> None:
    rng = np.random.default_rng(0)
    kernel = Depthwise(1, 6, 7, 9, 5, 3, 1, 2, 2, 1, 2, 1, x_dtype=dtype, out_dtype=dtype)
    finer = levels(dtype) / 256
    s_in, zp_in, s_out, zp_out = 0.03 / finer, int(-60 * finer), 0.02 / finer, 11
    low, high = QRANGE[dtype]
    x = rng.integers(low, high + 1, (1, 6, 7, 9)).astype(dtype)
    weight, bias = rng.normal(0, 0.15, (5, 3, 9)), rng.normal(0, 0.5, 9)
    w, bias_q, mult = dense_params(weight, bias, s_in, zp_in, s_out, x_dtype=dtype)
    weight = w * (mult.astype(np.float64) * s_out / s_in)
    image = np.pad((x.astype(float) - zp_in) * s_in, ((0, 0), (2, 2), (1, 1), (0, 0)))
    y = np.zeros((1, 6, 4, 9))
    for n, i, j, c in np.ndindex(*y.shape):
        y[n, i, j, c] = bias[c] + (image[n, i : i + 5, 2 * j : 2 * j + 3, c] * weight[..., c]).sum()
    q = kernel.reference(x, w, bias_q, mult, np.array([zp_in, zp_out], np.int32))
    assert_within_one_level(q, y, s_out, zp_out)


def test_inplace_keeps_the_other_channels() -> None:
    kernel = CASES[4]
    inputs = sample_inputs(kernel)
    y = kernel.reference(*inputs)
    others = [0, 1, 2, 9, 10]
    np.testing.assert_array_equal(y[..., others], inputs[-1][..., others])
    assert (y[..., 3:9] != inputs[-1][..., 3:9]).any()
    assert kernel.inplace_input == len(inputs) - 1


def test_channel_window_selects_the_input() -> None:
    window = Depthwise(1, 5, 5, 4, 3, 3, 1, 1, 1, 1, 1, 1, x_channels=10, x_offset=5)
    x, *rest = sample_inputs(window)
    alone = Depthwise(1, 5, 5, 4, 3, 3, 1, 1, 1, 1, 1, 1)
    np.testing.assert_array_equal(window.reference(x, *rest), alone.reference(x[..., 5:9].copy(), *rest))


def test_macs() -> None:
    assert Depthwise(1, 8, 8, 4, 3, 3, 1, 1, 1, 1, 1, 1).macs == 64 * 4 * 9
