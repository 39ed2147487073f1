"""Kernel arguments: exact values, and the bounds that the kernels' fixed-point steps rely on."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenext_tvm.errors import UserError
from edgenext_tvm.kernels import qparams
from edgenext_tvm.kernels.epilogue import WIDE_RESIDUAL_BITS
from edgenext_tvm.kernels.requantize import FIXED_LIMIT
from edgenext_tvm.kernels.wide import levels

SCALES = st.floats(1e-4, 10.0)
ZERO_POINTS = st.integers(-128, 127)
RNG = np.random.default_rng(0)


def test_the_input_zero_point_is_folded_into_the_bias() -> None:
    w = RNG.integers(-127, 128, (6, 4)).astype(np.int8)
    scales = RNG.uniform(0.001, 0.01, 4)
    bias = RNG.normal(0, 1, 4)
    params = qparams.dense_params(w, bias, 0.02, -17, 0.1, scales=scales)
    np.testing.assert_array_equal(params.w, w)
    x = RNG.integers(-128, 128, 6)
    real = (0.02 * (x + 17)) @ (w * scales) + bias
    acc = x @ w.astype(int) + params.bias
    # Off by the rounding of the bias alone: half a step of the accumulator.
    np.testing.assert_allclose(acc * 0.02 * scales, real, atol=0.02 * scales.max() / 2)
    np.testing.assert_allclose(params.mult, 0.02 * scales / 0.1, rtol=1e-7)


def test_a_float_weight_is_quantized_per_output_channel() -> None:
    weight = RNG.normal(0, 0.1, (3, 3, 2, 5))
    params = qparams.dense_params(weight, None, 0.02, 0, 0.1)
    scales = np.abs(weight).reshape(-1, 5).max(0) / 127
    assert np.abs(params.w).reshape(-1, 5).max(0).tolist() == [127] * 5
    np.testing.assert_allclose(params.w * scales, weight, atol=scales.max() / 2)
    assert params.bias.tolist() == [0] * 5


def test_a_channel_of_zeros_has_scale_one() -> None:
    assert qparams.weight_scales(np.zeros((4, 2))).tolist() == [1.0, 1.0]


def test_a_bias_too_large_for_int32_widens_its_channels_scale() -> None:
    w = np.full((2, 2), 100, np.int8)
    params = qparams.dense_params(w, np.array([0.0, 1e4]), 1e-4, 0, 1.0, scales=np.full(2, 1e-4))
    assert params.w[:, 0].tolist() == [100, 100]
    assert params.bias[1] <= qparams.BIAS_LIMIT
    assert params.bias[1] * float(params.mult[1]) == pytest.approx(1e4, rel=1e-6)


def test_a_sum_that_could_leave_int32_is_refused() -> None:
    with pytest.raises(UserError, match="do not fit an int32 sum; use fewer input channels"):
        qparams.dense_params(np.full((140_000, 1), 127, np.int8), None, 0.02, 0, 0.1, scales=np.ones(1))


@given(mult=st.floats(1e-6, 1.0), s_out=SCALES, ratio=st.floats(1e-3, 200.0), zp=ZERO_POINTS)
def test_a_residual_stays_in_bounds(mult: float, s_out: float, ratio: float, zp: int) -> None:
    params = qparams.residual_params(np.array([mult]), s_out, ratio * s_out, zp)
    bits = -math.log2(float(params.rs[0]))
    assert bits == int(bits) >= 0
    assert 255 * params.m_r < 1 << 22
    # Where the layer's part saturates, the sum is outside the output's range whatever the residual is.
    assert FIXED_LIMIT - 255 * params.m_r >= 255 * 2**bits - 2**bits
    assert params.m_r == pytest.approx(ratio * 2**bits, abs=0.5)
    assert params.mult[0] == pytest.approx(mult * 2**bits, rel=1e-6)
    assert params.rp.tolist() == [zp, params.m_r]


@given(a=SCALES, b=SCALES, out=st.floats(0.01, 1.0), za=ZERO_POINTS, zb=ZERO_POINTS, zo=ZERO_POINTS)
def test_a_sum_is_exact_to_the_fixed_point_step(a, b, out, za, zb, zo) -> None:
    ap, rs = qparams.add_params(a, za, b, zb, out, zo)
    assert ap[[0, 2, 4]].tolist() == [za, zb, zo]
    assert 255 * int(ap[1]) < 1 << 22
    assert 255 * int(ap[3]) < 1 << 22
    assert ap[1] * float(rs[0]) == pytest.approx(a / out, abs=float(rs[0]) / 2)
    assert ap[3] * float(rs[0]) == pytest.approx(b / out, abs=float(rs[0]) / 2)


@pytest.mark.parametrize(
    "call",
    [
        lambda: qparams.residual_params(np.ones(1), 1e-9, 100.0, 0),
        lambda: qparams.add_params(100.0, 0, 1.0, 0, 1e-9, 0),
    ],
)
def test_a_ratio_beyond_fixed_point_is_refused(call) -> None:
    with pytest.raises(UserError, match="too large for fixed point; recalibrate"):
        call()


def test_layer_norm_without_affine_part() -> None:
    params = qparams.layer_norm_params(1e-6, 0.02, 0.03, 48)
    np.testing.assert_allclose(params.ln, [16 * 48 * 1e-6 / 0.02**2, 4 / (math.sqrt(48) * 0.03)], rtol=1e-6)
    assert params[1:] == (None, None, None)


@given(c=st.integers(2, 2000), size=st.floats(0.01, 50.0), offset=st.floats(0.0, 50.0), s_out=st.floats(0.005, 1.0))
def test_layer_norms_affine_part_fits_int32(c: int, size: float, offset: float, s_out: float) -> None:
    gamma, beta = np.full(c, size), np.full(c, -offset)
    params = qparams.layer_norm_params(1e-6, 0.02, s_out, c, gamma, beta)
    # |x - mean| / sigma is at most sqrt(C - 1) (Samuelson's inequality), in 10 fractional bits.
    largest = math.sqrt(c - 1) * 1024 + 1
    assert largest * abs(int(params.g[0])) + abs(int(params.b[0])) < 2**31
    step = float(params.rs[0]) * 1024
    assert params.g[0] * step == pytest.approx(size / s_out, abs=step)
    assert params.b[0] * float(params.rs[0]) == pytest.approx(-offset / s_out, abs=float(params.rs[0]))


def test_a_table_holds_every_level() -> None:
    table = qparams.lut_params(lambda x: x, 0.5, 3, 0.5, 3)
    assert table.tolist() == list(range(-128, 128))
    table = qparams.lut_params(lambda x: np.maximum(x, 0), 0.5, 0, 0.25, -128)
    assert table[128 + 10] == -128 + 20
    assert table[0] == -128
    assert table[255] == 126


def test_infinite_values_saturate_and_undefined_ones_are_refused() -> None:
    with np.errstate(divide="ignore"):
        table = qparams.lut_params(lambda x: 1 / x, 0.5, 0, 0.5, 0)
    assert table[128] == 127
    with pytest.raises(UserError, match="not a number at -1"), np.errstate(invalid="ignore"):
        qparams.lut_params(lambda x: np.where(x == -1, np.nan, x), 1.0, 0, 1.0, 0)


def test_attention_parameters() -> None:
    tau, table = qparams.xca_params(np.array([[[1.0]], [[2.0]]]))
    np.testing.assert_allclose(tau, [256 * math.log2(math.e), 512 * math.log2(math.e)], rtol=1e-7)
    assert table[0] == 127 << 16
    assert table[128] == round(127 * 65536 / math.sqrt(2))
    assert (np.diff(table) < 0).all()
    assert table[255] > 127 << 15
    assert qparams.xca_apply_params(0.05, 0.04) == np.float32(1.25)


def test_pool_parameters() -> None:
    assert qparams.pool_params(0.5, 0.25, 4, 8) == np.float32(2 / 32)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, math.nan])
@pytest.mark.parametrize(
    "call",
    [
        lambda s: qparams.dense_params(np.ones((2, 2), np.int8), None, s, 0, 1.0, scales=np.ones(2)),
        lambda s: qparams.dense_params(np.ones((2, 2), np.int8), None, 1.0, 0, s, scales=np.ones(2)),
        lambda s: qparams.residual_params(np.ones(2), 1.0, s, 0),
        lambda s: qparams.add_params(1.0, 0, s, 0, 1.0, 0),
        lambda s: qparams.layer_norm_params(1e-6, s, 1.0, 8),
        lambda s: qparams.lut_params(np.abs, 1.0, 0, s, 0),
        lambda s: qparams.xca_apply_params(1.0, s),
        lambda s: qparams.pool_params(s, 1.0, 2, 2),
    ],
)
def test_scales_must_be_positive_numbers(call, scale: float) -> None:
    with pytest.raises(UserError, match="a scale must be finite and greater than 0; recalibrate that tensor"):
        call(scale)


@given(
    ratio=st.floats(1e-3, 100.0),
    zp=ZERO_POINTS,
    dtypes=st.sampled_from([("int8", "int16"), ("int16", "int8"), ("int16", "int16")]),
)
def test_a_wide_residual_stays_in_bounds(ratio: float, zp: int, dtypes: tuple[str, str]) -> None:
    out_dtype, r_dtype = dtypes
    params = qparams.residual_params(np.array([0.01]), 0.1, ratio * 0.1, zp, out_dtype, r_dtype)
    bits = -math.log2(float(params.rs[0]))
    largest = (levels(r_dtype) - 1) * params.m_r
    # Where the layer's part saturates, the sum is outside the output's range whatever the residual is.
    assert (FIXED_LIMIT << WIDE_RESIDUAL_BITS) - largest >= (levels(out_dtype) - 2) * 2**bits
    assert (FIXED_LIMIT << WIDE_RESIDUAL_BITS) + largest < 2**31
    assert params.m_r == pytest.approx(ratio * 2**bits, abs=0.5)
    assert params.mult[0] == pytest.approx(0.01 * 2 ** (bits - WIDE_RESIDUAL_BITS), rel=1e-6)
    assert params.rp.tolist() == [zp, params.m_r]


@given(a=st.floats(0.001, 1.0), b=st.floats(0.001, 1.0), dtypes=st.tuples(*[st.sampled_from(["int8", "int16"])] * 3))
def test_a_sum_with_a_wide_tensor_stays_in_int32(a: float, b: float, dtypes: tuple[str, str, str]) -> None:
    ap, rs = qparams.add_params(a, 0, b, 0, 0.1, 0, dtypes)
    assert (levels(dtypes[0]) - 1) * int(ap[1]) + (levels(dtypes[1]) - 1) * int(ap[3]) < 2**30
    assert ap[1] * float(rs[0]) == pytest.approx(a / 0.1, abs=float(rs[0]))


def test_the_sum_of_a_wide_input_leaves_int32_sooner() -> None:
    w = np.full((20_000, 1), 127, np.int8)
    qparams.dense_params(w, None, 0.02, 0, 0.1, scales=np.ones(1))
    with pytest.raises(UserError, match="20000 products per output do not fit an int32 sum"):
        qparams.dense_params(w, None, 0.02, 0, 0.1, scales=np.ones(1), x_dtype="int16")


def test_layer_norm_of_a_wide_input_has_no_factor() -> None:
    params = qparams.layer_norm_params(1e-6, 0.02, 0.03, 48, x_dtype="int16")
    np.testing.assert_allclose(params.ln, [48 * 1e-6 / 0.02**2, 1 / (math.sqrt(48) * 0.03)], rtol=1e-6)


def test_wide_zero_points_have_12_bits() -> None:
    dtypes = ("int8", "int16", "int8")
    qparams.add_params(1.0, 0, 1.0, 2047, 1.0, 0, dtypes)
    with pytest.raises(UserError, match=r"zp_b is 2048, an int16 zero point lies in \[-2048, 2047\]; recalibrate"):
        qparams.add_params(1.0, 0, 1.0, 2048, 1.0, 0, dtypes)


@pytest.mark.parametrize("zero_point", [-129, 128])
def test_zero_points_are_int8(zero_point: int) -> None:
    with pytest.raises(UserError, match=rf"zp_b is {zero_point}, an int8 zero point lies in \[-128, 127\]"):
        qparams.add_params(1.0, 0, 1.0, zero_point, 1.0, 0)
