from __future__ import annotations

import numpy as np
import pytest

from edgenext_tvm.kernels import XcaApply, XcaScores
from edgenext_tvm.kernels.qparams import xca_apply_params, xca_params
from edgenext_tvm.kernels.sample_inputs import sample_inputs

CASES = [XcaApply(1, 1, 1), XcaApply(5, 12, 4), XcaApply(49, 88, 4), XcaApply(9, 34, 2)]


@pytest.mark.parametrize("kernel", CASES, ids=lambda kernel: kernel.task_hint)
def test_tir_gives_the_twins_bits(kernel: XcaApply, assert_twin_matches) -> None:
    assert_twin_matches(kernel)


def test_twin_is_the_real_weighted_mean(assert_within_one_level) -> None:
    kernel = XcaApply(64, 48, 4)
    qkv, e, *_ = sample_inputs(kernel, 2)
    weights = e / e.sum(axis=1, keepdims=True, dtype=np.float64)
    v = ((qkv[:, 96:].astype(float) + 20) * 0.1).reshape(64, 4, 12)
    q = kernel.reference(qkv, e, np.array([-20, 6], np.int32), xca_apply_params(0.1, 0.04))
    assert_within_one_level(q, np.einsum("thj,hji->thi", v, weights).reshape(64, 48), 0.04, 6)


def test_scores_and_apply_together_are_cross_covariance_attention() -> None:
    t, c, heads = 64, 48, 4
    scores, apply = XcaScores(t, c, heads), XcaApply(t, c, heads)
    qkv = sample_inputs(scores, 9)[0]
    temperature = np.array([1.0, 3.0, 0.5, 8.0])
    e = scores.reference(qkv, np.array([7], np.int32), *xca_params(temperature))
    q = apply.reference(qkv, e, np.array([7, 0], np.int32), xca_apply_params(0.1, 0.04))
    real = (qkv.astype(float) - 7).reshape(t, 3, heads, c // heads)
    queries, keys, values = (real[:, i] for i in range(3))
    queries, keys = queries / np.linalg.norm(queries, axis=0), keys / np.linalg.norm(keys, axis=0)
    attention = np.exp(np.einsum("thi,thj->hij", queries, keys) * temperature[:, None, None])
    attention /= attention.sum(axis=2, keepdims=True)
    y = np.einsum("hij,thj->thi", attention, values * 0.1).reshape(t, c)
    error = np.abs(q - np.clip(np.rint(y / 0.04), -128, 127))
    assert error.max() <= 2
    assert (error > 0).mean() < 0.35
