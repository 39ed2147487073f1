from __future__ import annotations

import numpy as np
import pytest

from edgenext_tvm.kernels import GlobalAvgPool
from edgenext_tvm.kernels.global_avg_pool import WIDE_MAX_PIXELS
from edgenext_tvm.kernels.qparams import pool_params

CASES = [GlobalAvgPool(1, 1, 1, 1), GlobalAvgPool(2, 5, 7, 17), GlobalAvgPool(1, 8, 8, 88)]
CASES += [GlobalAvgPool(1, 8, 8, 88, out_dtype="int16"), GlobalAvgPool(2, 5, 7, 17, "int16", "int16")]
CASES += [GlobalAvgPool(1, 3, 1, 5, "int16")]


@pytest.mark.parametrize("kernel", CASES, ids=lambda kernel: kernel.task_hint)
def test_tir_gives_the_twins_bits(kernel: GlobalAvgPool, assert_twin_matches) -> None:
    assert_twin_matches(kernel)


@pytest.mark.parametrize(("dtype", "s_out"), [("int8", 0.0213), ("int16", 0.0213 / 16)])
def test_twin_is_the_real_mean(dtype: str, s_out: float, assert_within_one_level) -> None:
    x = np.random.default_rng(0).integers(-128, 128, (2, 5, 3, 100)).astype(np.int8)
    kernel = GlobalAvgPool(2, 5, 3, 100, out_dtype=dtype)
    q = kernel.reference(x, pool_params(0.05, s_out, 5, 3), np.array([-40, 3], np.int32))
    assert_within_one_level(q, ((x.astype(float) + 40) * 0.05).mean(axis=(1, 2)), s_out, 3)


def test_no_sum_overflows_at_the_largest_wide_image() -> None:
    kernel = GlobalAvgPool(1, WIDE_MAX_PIXELS, 1, 1, "int16", "int16")
    x = np.full((1, WIDE_MAX_PIXELS, 1, 1), 2047, np.int16)
    mult = pool_params(0.01, 0.02, WIDE_MAX_PIXELS, 1)
    assert kernel.reference(x, mult, np.array([-2048, 0], np.int32)).tolist() == [[2047]]
