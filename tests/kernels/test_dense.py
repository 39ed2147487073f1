from __future__ import annotations

import numpy as np
import pytest

from edgenext_tvm.kernels import Dense
from edgenext_tvm.kernels.qparams import dense_params, lut_params, residual_params
from edgenext_tvm.kernels.wide import QRANGE, levels

CASES = [
    Dense(1, 1, 1),
    Dense(3, 17, 1),
    Dense(6, 5, 7, "lut"),
    Dense(49, 24, 17, "residual"),
    Dense(5, 88, 100),
    Dense(1, 40, 13, "none", "float32"),
    Dense(5, 88, 17, "none", "int16"),
    Dense(3, 17, 9, "lut", x_dtype="int16"),
    Dense(1, 168, 13, "none", "float32", "int16"),
    Dense(6, 24, 7, "residual", "int16"),
    Dense(6, 24, 7, "residual", r_dtype="int16"),
    Dense(49, 88, 17, "residual", "int16", "int16", "int16"),
]


@pytest.mark.parametrize("kernel", CASES, ids=lambda kernel: kernel.task_hint)
def test_tir_gives_the_twins_bits(kernel: Dense, assert_twin_matches) -> None:
    assert_twin_matches(kernel)


@pytest.fixture
def layer() -> dict[str, np.ndarray | float | int]:
    rng = np.random.default_rng(3)
    s_in, zp_in = 0.02, -17
    x = rng.integers(-128, 128, (33, 40)).astype(np.int8)
    weight, bias = rng.normal(0, 0.2, (40, 21)), rng.normal(0, 0.5, 21)
    params = dense_params(weight, bias, s_in, zp_in, s_out=0.03)
    # Judge the arithmetic, not the weights' own rounding.
    weight = params.w * (params.mult.astype(np.float64) * 0.03 / s_in)
    return {"x": x, "zp_in": zp_in, "params": params, "y": (x.astype(float) - zp_in) * s_in @ weight + bias}


def test_twin_is_the_real_layer(layer, assert_within_one_level) -> None:
    w, bias, mult = layer["params"]
    q = Dense(33, 40, 21).reference(layer["x"], w, bias, mult, np.array([layer["zp_in"], 9], np.int32))
    assert_within_one_level(q, layer["y"], 0.03, 9)


def test_residual_is_added_before_the_only_rounding(layer, assert_within_one_level) -> None:
    w, bias, mult = layer["params"]
    r = np.random.default_rng(4).integers(-128, 128, (33, 21)).astype(np.int8)
    residual = residual_params(mult, 0.03, s_r=0.011, zp_r=-5)
    qp = np.array([layer["zp_in"], 9], np.int32)
    kernel = Dense(33, 40, 21, "residual")
    q = kernel.reference(layer["x"], w, bias, residual.mult, qp, r, residual.rp, residual.rs)
    assert_within_one_level(q, layer["y"] + (r + 5.0) * 0.011, 0.03, 9)


@pytest.mark.parametrize(("out_dtype", "r_dtype"), [("int16", "int8"), ("int8", "int16"), ("int16", "int16")])
def test_a_wide_sum_is_as_exact_on_its_finer_grid(layer, out_dtype, r_dtype, assert_within_one_level) -> None:
    w, bias, mult = layer["params"]
    low, high = QRANGE[r_dtype]
    r = np.random.default_rng(4).integers(low, high + 1, (33, 21)).astype(r_dtype)
    s_out, s_r = 0.03 * 256 / levels(out_dtype), 0.011 * 256 / levels(r_dtype)
    residual = residual_params(mult.astype(float) * 0.03 / s_out, s_out, s_r, -5, out_dtype, r_dtype)
    kernel = Dense(33, 40, 21, "residual", out_dtype, r_dtype=r_dtype)
    qp = np.array([layer["zp_in"], 9], np.int32)
    q = kernel.reference(layer["x"], w, bias, residual.mult, qp, r, residual.rp, residual.rs)
    assert_within_one_level(q, layer["y"] + (r + 5.0) * s_r, s_out, 9)


def test_table_follows_the_requantization(layer, assert_within_one_level) -> None:
    w, bias, mult = layer["params"]
    table = lut_params(np.tanh, 0.03, 9, 1 / 64, 0)
    qp = np.array([layer["zp_in"], 9], np.int32)
    q = Dense(33, 40, 21, "lut").reference(layer["x"], w, bias, mult, qp, table)
    rounded = np.clip(np.rint(layer["y"] / 0.03) + 9, -128, 127)
    assert_within_one_level(q, np.tanh((rounded - 9) * 0.03), 1 / 64, 0)


def test_logits_are_float(layer) -> None:
    w, bias, mult = layer["params"]
    y = Dense(33, 40, 21, "none", "float32").reference(
        layer["x"], w, bias, mult * np.float32(0.03), np.zeros(2, np.int32)
    )
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, layer["y"], atol=1e-2)


def test_macs() -> None:
    assert Dense(4, 8, 16).macs == 512
