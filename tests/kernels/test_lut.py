from __future__ import annotations

import numpy as np
import pytest

from edgenext_tvm.kernels import Lut
from edgenext_tvm.kernels.qparams import lut_params
from edgenext_tvm.kernels.sample_inputs import sample_inputs

CASES = [Lut(5, 3), Lut(7, 17, 30, 13), Lut(6, 8, 8, 0, 20, 5, inplace=True)]


@pytest.mark.parametrize("kernel", CASES, ids=lambda kernel: kernel.task_hint)
def test_tir_gives_the_twins_bits(kernel: Lut, assert_twin_matches) -> None:
    assert_twin_matches(kernel)


def test_twin_is_the_real_function(assert_within_one_level) -> None:
    x = np.arange(-128, 128).astype(np.int8).reshape(16, 16)
    table = lut_params(np.sin, 0.02, 10, 0.01, -3)
    assert_within_one_level(Lut(16, 16).reference(x, table), np.sin((x.astype(float) - 10) * 0.02), 0.01, -3)


def test_identity_table_copies_a_window_in_place() -> None:
    kernel = CASES[2]
    x, _, y_in = sample_inputs(kernel)
    y = kernel.reference(x, np.arange(-128, 128).astype(np.int8), y_in)
    np.testing.assert_array_equal(y[:, 5:13], x)
    np.testing.assert_array_equal(np.delete(y, range(5, 13), 1), np.delete(y_in, range(5, 13), 1))
    assert kernel.inplace_input == 2
