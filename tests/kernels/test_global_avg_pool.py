from __future__ import annotations

import numpy as np
import pytest

from edgenext_tvm.kernels import GlobalAvgPool
from edgenext_tvm.kernels.qparams import pool_params

CASES = [GlobalAvgPool(1, 1, 1, 1), GlobalAvgPool(2, 5, 7, 17), GlobalAvgPool(1, 8, 8, 88)]


@pytest.mark.parametrize("kernel", CASES, ids=lambda kernel: kernel.task_hint)
def test_tir_gives_the_twins_bits(kernel: GlobalAvgPool, assert_twin_matches) -> None:
    assert_twin_matches(kernel)


def test_twin_is_the_real_mean(assert_within_one_level) -> None:
    x = np.random.default_rng(0).integers(-128, 128, (2, 5, 3, 100)).astype(np.int8)
    q = GlobalAvgPool(2, 5, 3, 100).reference(x, pool_params(0.05, 0.0213, 5, 3), np.array([-40, 3], np.int32))
    assert_within_one_level(q, ((x.astype(float) + 40) * 0.05).mean(axis=(1, 2)), 0.0213, 3)
