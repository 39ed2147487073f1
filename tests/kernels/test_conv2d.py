from __future__ import annotations

import numpy as np
import pytest

from edgenext_tvm.kernels import Conv2d
from edgenext_tvm.kernels.qparams import dense_params
from edgenext_tvm.kernels.wide import QRANGE, levels

CASES = [
    Conv2d(1, 8, 12, 3, 17, 4, 4, 4, 4),
    Conv2d(2, 7, 5, 5, 8, 2, 2, 2, 2, epilogue="lut"),
    Conv2d(1, 9, 7, 3, 8, 3, 3, 2, 2, 1, 1, 1, 1, epilogue="residual"),
    Conv2d(1, 3, 5, 1, 1, 7, 7, 1, 1, 3, 3, 3, 3),
    Conv2d(1, 8, 12, 3, 17, 4, 4, 4, 4, out_dtype="int16"),
    Conv2d(1, 9, 7, 3, 8, 3, 3, 2, 2, 1, 1, 1, 1, "residual", "int16", "int16", "int16"),
    Conv2d(2, 7, 5, 5, 8, 2, 2, 2, 2, epilogue="lut", x_dtype="int16"),
]


@pytest.mark.parametrize("kernel", CASES, ids=lambda kernel: kernel.task_hint)
def test_tir_gives_the_twins_bits(kernel: Conv2d, assert_twin_matches) -> None:
    assert_twin_matches(kernel)


@pytest.mark.parametrize("dtype", QRANGE)
def test_twin_is_the_real_convolution(dtype: str, assert_within_one_level) -> None:
    rng = np.random.default_rng(0)
    window = {"pad_top": 1, "pad_left": 0, "pad_bottom": 2, "pad_right": 1}
    kernel = Conv2d(2, 7, 6, 5, 9, 3, 2, 2, 1, **window, x_dtype=dtype, out_dtype=dtype)
    finer = levels(dtype) / 256
    s_in, zp_in, s_out, zp_out = 0.03 / finer, int(40 * finer), 0.05 / finer, -7
    low, high = QRANGE[dtype]
    x = rng.integers(low, high + 1, (2, 7, 6, 5)).astype(dtype)
    weight, bias = rng.normal(0, 0.15, (3, 2, 5, 9)), rng.normal(0, 0.5, 9)
    w, bias_q, mult = dense_params(weight, bias, s_in, zp_in, s_out, x_dtype=dtype)
    weight = w * (mult.astype(np.float64) * s_out / s_in)
    image = np.pad((x.astype(float) - zp_in) * s_in, ((0, 0), (1, 2), (0, 1), (0, 0)))
    y = np.zeros((2, 4, 6, 9))
    for n, i, j, co in np.ndindex(*y.shape):
        y[n, i, j, co] = bias[co] + (image[n, 2 * i : 2 * i + 3, j : j + 2] * weight[..., co]).sum()
    q = kernel.reference(x, w, bias_q, mult, np.array([zp_in, zp_out], np.int32))
    assert_within_one_level(q, y, s_out, zp_out)


def test_macs() -> None:
    assert Conv2d(1, 8, 8, 3, 16, 4, 4, 4, 4).macs == 2 * 2 * 16 * 48
