from __future__ import annotations

import numpy as np
import pytest

from edgenext_tvm.kernels import LayerNorm
from edgenext_tvm.kernels.layer_norm import MAX_CHANNELS
from edgenext_tvm.kernels.qparams import layer_norm_params
from edgenext_tvm.kernels.wide import QRANGE, WIDE_MAX_CHANNELS, WIDE_QMAX, WIDE_QMIN, levels

CASES = [LayerNorm(3, 1), LayerNorm(5, 17), LayerNorm(7, 88), LayerNorm(4, 100, True), LayerNorm(2, MAX_CHANNELS)]
CASES += [
    LayerNorm(3, 1, x_dtype="int16"),
    LayerNorm(5, 17, False, "int16", "int16"),
    LayerNorm(7, 88, False, "int8", "int16"),
    LayerNorm(4, 100, True, "int16", "int16"),
    LayerNorm(4, 60, True, "int8", "int16"),
    LayerNorm(2, WIDE_MAX_CHANNELS, True, "int16"),
]
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


@pytest.mark.parametrize("c", [24, 88, WIDE_MAX_CHANNELS])
@pytest.mark.parametrize("spread", [48, 200, 2048])
@pytest.mark.parametrize("out_dtype", ["int8", "int16"])
def test_twin_of_a_wide_input_is_the_real_layer_norm(c, spread, out_dtype, assert_within_one_level) -> None:
    rng = np.random.default_rng(c)
    x = rng.integers(WIDE_QMIN, WIDE_QMAX + 1, (40, 1)) + rng.integers(-spread, spread + 1, (40, c))
    x = np.clip(x, WIDE_QMIN, WIDE_QMAX).astype(np.int16)
    s_out = 0.03 * 256 / levels(out_dtype)
    params = layer_norm_params(EPS, S_IN, s_out, c, x_dtype="int16", out_dtype=out_dtype)
    q = LayerNorm(40, c, False, "int16", out_dtype).reference(x, params.ln, np.array([ZP_OUT], np.int32))
    assert_within_one_level(q, normalised(x), s_out, ZP_OUT)


@pytest.mark.parametrize("out_dtype", ["int8", "int16"])
def test_twin_of_a_wide_input_is_the_real_affine_layer_norm(out_dtype, assert_within_one_level) -> None:
    rng = np.random.default_rng(1)
    x = rng.integers(WIDE_QMIN, WIDE_QMAX + 1, (40, 88)).astype(np.int16)
    gamma, beta = rng.normal(1, 0.5, 88), rng.normal(0, 1, 88)
    s_out = 0.04 * 256 / levels(out_dtype)
    params = layer_norm_params(EPS, S_IN, s_out, 88, gamma, beta, "int16", out_dtype)
    qp = np.array([ZP_OUT], np.int32)
    q = LayerNorm(40, 88, True, "int16", out_dtype).reference(x, params.ln, qp, params.g, params.b, params.rs)
    error = np.abs(q - np.clip(np.rint((normalised(x) * gamma + beta) / s_out) + ZP_OUT, *QRANGE[out_dtype]))
    assert error.max() <= 1


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


def test_no_sum_overflows_at_the_widest_row_of_a_wide_tensor() -> None:
    c = WIDE_MAX_CHANNELS - 1
    params = layer_norm_params(EPS, S_IN, S_OUT, c, x_dtype="int16")
    kernel, qp = LayerNorm(3, c, x_dtype="int16"), np.array([0], np.int32)
    x = np.full((3, c), WIDE_QMIN, np.int16)
    x[1] = WIDE_QMAX
    x[2, ::2] = WIDE_QMAX
    q = kernel.reference(x, params.ln, qp)
    assert [np.unique(row).tolist() for row in q] == [[0], [0], [-33, 33]]
