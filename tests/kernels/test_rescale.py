from __future__ import annotations

import numpy as np
import pytest

from edgenext_tvm.kernels import Rescale
from edgenext_tvm.kernels.qparams import rescale_params
from edgenext_tvm.kernels.sample_inputs import sample_inputs

CASES = [
    Rescale(5, 3),
    Rescale(7, 17, "int16", "int8", 30, 13),
    Rescale(4, 24, "int8", "int16"),
    Rescale(6, 8, y_channels=20, y_offset=5, inplace=True),
]


@pytest.mark.parametrize("kernel", CASES, ids=lambda kernel: kernel.task_hint)
def test_tir_gives_the_twins_bits(kernel: Rescale, assert_twin_matches) -> None:
    assert_twin_matches(kernel)


@pytest.mark.parametrize(("x_dtype", "out_dtype"), [("int16", "int8"), ("int8", "int16"), ("int16", "int16")])
def test_twin_is_the_real_requantization(x_dtype: str, out_dtype: str, assert_within_one_level) -> None:
    x = sample_inputs(Rescale(64, 9, x_dtype, out_dtype), 3)[0]
    s_in, s_out = (0.05 / 16 if x_dtype == "int16" else 0.05), (0.0313 / 16 if out_dtype == "int16" else 0.0313)
    kernel = Rescale(64, 9, x_dtype, out_dtype)
    q = kernel.reference(x, rescale_params(s_in, s_out), np.array([-40, 3], np.int32))
    assert_within_one_level(q, (x.astype(float) + 40) * s_in, s_out, 3)


def test_factor_one_copies_every_wide_value() -> None:
    x = np.arange(-2048, 2048, dtype=np.int16).reshape(64, 64)
    one, zero = np.ones(1, np.float32), np.zeros(2, np.int32)
    np.testing.assert_array_equal(Rescale(64, 64).reference(x, one, zero), x)


def test_inplace_keeps_the_other_channels() -> None:
    inputs = sample_inputs(CASES[3])
    y = CASES[3].reference(*inputs)
    np.testing.assert_array_equal(y[:, :5], inputs[-1][:, :5])
    np.testing.assert_array_equal(y[:, 13:], inputs[-1][:, 13:])
