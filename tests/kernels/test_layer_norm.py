from __future__ import annotations

import numpy as np
import pytest

from edgenext_tvm.kernels import LayerNorm
from edgenext_tvm.kernels.layer_norm import MAX_CHANNELS
from edgenext_tvm.kernels.qparams import layer_norm_params

CASES = [LayerNorm(3, 1), LayerNorm(5, 17), LayerNorm(7, 88), LayerNorm(4, 100, True), LayerNorm(2, MAX_CHANNELS)]
EPS, S_IN, ZP_IN, S_OUT, ZP_OUT = 1e-6, 0.05, -30, 0.03, 4


@pytest.mark.parametrize("kernel", CASES, ids=lambda kernel: kernel.task_hint)
def test_tir_gives_the_twins_bits(kernel: LayerNorm, assert_twin_matches) -> None:
    assert_twin_matches(kernel)


def normalised(x: np.ndarray) -> np.ndarray:
    real = (x.astype(np.float64) - ZP_IN) * S_IN
    return (real - real.mean(axis=1, keepdims=True)) / np.sqrt(real.var(axis=1, keepdims=True) + EPS)


@pytest.mark.parametrize("c", [24, 88, 304])
@pytest.mark.parametrize("spread", [1, 3, 128])
def test_twin_is_the_real_layer_norm(c: int, spread: int, assert_within_one_level) -> None:
    rng = np.random.default_rng(c)
    x = np.clip(rng.integers(-128, 128, (40, 1)) + rng.integers(-spread, spread + 1, (40, c)), -128, 127)
    params = layer_norm_params(EPS, S_IN, S_OUT, c)
    q = LayerNorm(40, c).reference(x.astype(np.int8), params.ln, np.array([ZP_OUT], np.int32))
    assert_within_one_level(q, normalised(x), S_OUT, ZP_OUT)


def test_twin_is_the_real_affine_layer_norm(assert_within_one_level) -> None:
    rng = np.random.default_rng(1)
    x = rng.integers(-128, 128, (40, 88)).astype(np.int8)
    gamma, beta = rng.normal(1, 0.5, 88), rng.normal(0, 1, 88)
    params = layer_norm_params(EPS, S_IN, S_OUT, 88, gamma, beta)
    qp = np.array([ZP_OUT], np.int32)
    q = LayerNorm(40, 88, True).reference(x, params.ln, qp, params.g, params.b, params.rs)
    assert_within_one_level(q, normalised(x) * gamma + beta, S_OUT, ZP_OUT)


@pytest.mark.parametrize("value", [-128, -1, 0, 127])
def test_a_constant_row_becomes_the_zero_point(value: int) -> None:
    params = layer_norm_params(EPS, S_IN, S_OUT, 88)
    x = np.full((2, 88), value, np.int8)
    assert (LayerNorm(2, 88).reference(x, params.ln, np.array([ZP_OUT], np.int32)) == ZP_OUT).all()


def test_no_sum_overflows_at_the_widest_row() -> None:
    x = np.full((1, MAX_CHANNELS), -128, np.int8)
    x[0, ::2] = 127
    params = layer_norm_params(EPS, S_IN, S_OUT, MAX_CHANNELS)
    q = LayerNorm(1, MAX_CHANNELS).reference(x, params.ln, np.array([0], np.int32))
    assert np.unique(q).tolist() == [-33, 33]
