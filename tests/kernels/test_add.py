from __future__ import annotations

import numpy as np
import pytest

from edgenext_tvm.kernels import Add
from edgenext_tvm.kernels.qparams import add_params

CASES = [Add(5, 3), Add(7, 17, 30, 13, 20, 0), Add(4, 88)]
CASES += [
    Add(5, 3, a_dtype="int16"),
    Add(7, 17, 30, 13, 20, 0, b_dtype="int16", out_dtype="int16"),
    Add(4, 88, a_dtype="int16", b_dtype="int16", out_dtype="int16"),
    Add(4, 5, out_dtype="int16"),
    Add(4, 5, a_dtype="int16", b_dtype="int16"),
]


@pytest.mark.parametrize("kernel", CASES, ids=lambda kernel: kernel.task_hint)
def test_tir_gives_the_twins_bits(kernel: Add, assert_twin_matches) -> None:
    assert_twin_matches(kernel)


@pytest.mark.parametrize(("s_a", "s_b", "s_out"), [(0.0213, 0.0507, 0.0611), (0.001, 0.91, 0.7), (2.0, 1.9, 0.313)])
def test_twin_is_the_real_sum(s_a: float, s_b: float, s_out: float, assert_within_one_level) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(-128, 128, (64, 12)).astype(np.int8), rng.integers(-128, 128, (64, 9)).astype(np.int8)
    ap, rs = add_params(s_a, -100, s_b, 20, s_out, 5)
    q = Add(64, 9, a_channels=12, a_offset=3).reference(a, b, ap, rs)
    real = (a[:, 3:].astype(float) + 100) * s_a + (b.astype(float) - 20) * s_b
    assert_within_one_level(q, real, s_out, 5)


@pytest.mark.parametrize(("s_a", "s_b", "s_out"), [(0.0213, 0.0507, 0.0611), (0.001, 0.91, 0.7), (2.0, 1.9, 0.313)])
def test_a_wide_sum_is_as_exact_on_its_finer_grid(s_a, s_b, s_out, assert_within_one_level) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(-2048, 2048, (64, 9)).astype(np.int16), rng.integers(-128, 128, (64, 9)).astype(np.int8)
    dtypes = ("int16", "int8", "int16")
    s_a, s_out = s_a / 16, s_out / 16
    ap, rs = add_params(s_a, -1600, s_b, 20, s_out, 80, dtypes)
    q = Add(64, 9, a_dtype="int16", out_dtype="int16").reference(a, b, ap, rs)
    assert_within_one_level(q, (a.astype(float) + 1600) * s_a + (b.astype(float) - 20) * s_b, s_out, 80)
