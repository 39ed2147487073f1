from __future__ import annotations

import numpy as np
import pytest

from edgenext_tvm.errors import UserError
from edgenext_tvm.kernels import qparams


def test_weights_fill_their_range_per_output_channel() -> None:
    weight = np.array([[0.15, -4.0], [-0.2, 1.0]])
    w, bias, mult = qparams.dense_params(weight, None, 0.5, 0, 2.0)
    assert w.tolist() == [[95, -127], [-127, 32]]
    assert bias.tolist() == [0, 0]
    np.testing.assert_allclose(mult, [0.2 / 127 / 4, 4.0 / 127 / 4], rtol=1e-6)


def test_input_zero_point_is_folded_into_the_bias() -> None:
    weight = np.array([[3], [-2]], np.int8)
    _, bias, _ = qparams.dense_params(weight, np.array([1.0]), 0.1, 5, 1.0, np.array([0.5]))
    assert bias.tolist() == [20 - 5 * (3 - 2)]


def test_given_int8_weights_are_kept() -> None:
    weight = np.arange(-127, 129, 2).astype(np.int8).reshape(2, 64)
    w, _, mult = qparams.dense_params(weight, np.ones(64), 0.1, 3, 0.2, np.full(64, 0.25))
    np.testing.assert_array_equal(w, weight)
    np.testing.assert_allclose(mult, 0.125)


def test_bias_of_a_dead_channel_fits_by_widening_the_scale() -> None:
    weight = np.array([[1e-12, 0.0]])
    w, bias, mult = qparams.dense_params(weight, np.array([3.0, -2.0]), 0.1, 4, 0.5)
    assert w.tolist() == [[0, 0]]
    np.testing.assert_allclose(bias * mult.astype(np.float64), [6.0, -4.0], rtol=1e-6)


def test_sums_beyond_int32_are_refused() -> None:
    with pytest.raises(UserError, match="200000 products per output do not fit an int32 sum; use fewer input"):
        qparams.dense_params(np.ones((200_000, 1)), None, 0.1, 0, 1.0)


@pytest.mark.parametrize("ratio", [1e-4, 0.3, 1.0, 7.0, 900.0])
def test_residual_fraction_bits_are_as_many_as_are_safe(ratio: float) -> None:
    params = qparams.residual_params(np.array([0.01]), 0.5, 0.5 * ratio, -3)
    f = -int(np.log2(params.rs[0]))
    assert 255 * params.m_r < 2**22
    # A saturated sum must stay outside the output's range whatever the residual.
    assert 2**21 / 2**f > 255 + 255 * ratio
    assert f == 24 or 2**21 / 2 ** (f + 1) <= 256 + 256 * ratio or 256 * ratio * 2 ** (f + 1) >= 2**22
    np.testing.assert_allclose(params.mult, 0.01 * 2**f, rtol=1e-6)
    assert params.rp.tolist() == [-3, params.m_r]


@pytest.mark.parametrize(("s_a", "s_b"), [(1e-5, 2e-5), (1.0, 0.5), (60.0, 0.001)])
def test_add_multipliers_stay_below_two_to_the_22(s_a: float, s_b: float) -> None:
    ap, rs = qparams.add_params(s_a, -128, s_b, 127, 0.5, 0)
    assert 255 * ap[1] < 2**22 and 255 * ap[3] < 2**22
    assert abs(ap[1] * float(rs[0]) - s_a / 0.5) <= float(rs[0]) / 2


def test_affine_layer_norm_never_leaves_int32() -> None:
    rng = np.random.default_rng(0)
    for c, s_out in ((1, 1e-3), (24, 0.02), (2048, 5.0)):
        gamma, beta = rng.normal(0, 30, c), rng.normal(0, 100, c)
        _, g, b, rs = qparams.layer_norm_params(1e-6, 0.03, s_out, c, gamma, beta)
        largest = (np.sqrt(c) * 2**10 + 1) * np.abs(g.astype(np.float64)) + np.abs(b.astype(np.float64))
        assert largest.max() < 2**31
        np.testing.assert_allclose(b * float(rs[0]) * s_out, beta, atol=float(rs[0]) * s_out)


def test_table_rounds_in_float64_and_saturates() -> None:
    table = qparams.lut_params(lambda x: x * 2.5, 0.1, 0, 0.1, 1)
    assert table[128 + 1] == 3 and table[128 + 3] == 9 and table[128 - 1] == -1
    assert table[0] == -128 and table[255] == 127
    assert qparams.lut_params(lambda x: np.where(x > 0, np.inf, 0), 0.1, 0, 0.1, 0)[255] == 127


def test_exponential_table_halves_over_its_length() -> None:
    tau, table = qparams.xca_params(np.array([[[1.0]], [[2.0]]]))
    assert tau.tolist() == pytest.approx([369.3299, 738.6598])
    assert table[0] == 127 << 16 and len(table) == 256
    assert table[255] == pytest.approx(127 * 2**16 * 2 ** (-255 / 256), abs=0.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: qparams.pool_params(0.0, 1.0, 2, 2), "s_in is 0.0, a scale must be finite and greater than 0"),
        (lambda: qparams.add_params(1, 0, 1, 0, float("nan"), 0), "s_out is nan, a scale must be finite"),
        (lambda: qparams.add_params(1, 200, 1, 0, 1, 0), r"zp_a is 200, an int8 zero point lies in \[-128, 127\]"),
        (lambda: qparams.residual_params(np.ones(1), 1e-9, 1.0, 0), "residual: the ratio of scales is too large"),
        (lambda: qparams.lut_params(np.log, 1.0, 0, 1.0, 0), "the function is not a number at -128"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_impossible_parameters_are_refused(call, message: str) -> None:
    with pytest.raises(UserError, match=message):
        call()
