"""From scales and zero points to the integer and float32 arguments of the kernels, all computed in float64.

real = scale * (q - zero_point). Activations are int8 per tensor (or int16, see `wide`), weights int8 in [-127, 127] per
output channel, which is the last axis of every weight (dense [CI, CO], conv2d [KH, KW, CI, CO], depthwise [KH, KW, C]).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..errors import UserError
from .epilogue import WIDE_RESIDUAL_BITS
from .layer_norm import affine_shift, deviation_factor
from .requantize import FIXED_LIMIT
from .wide import QRANGE, levels
from .xca_scores import LOGIT_FRACTION_BITS, TABLE_FRACTION_BITS

WEIGHT_LIMIT = 127
SCORE_LIMIT = 127
BIAS_LIMIT = 1 << 30
"""A bias beyond it would leave no room for the sum in int32."""
RESIDUAL_LIMIT = 1 << 22
WIDE_SUM_LIMIT = 1 << 29
"""Bound of each of the two parts of a sum with a wide tensor in it."""
MAX_FRACTION_BITS = 24


class DenseParams(NamedTuple):
    """w int8, bias int32[CO] with the input zero point folded in, mult float32[CO] = s_in s_w / s_out."""

    w: np.ndarray
    bias: np.ndarray
    mult: np.ndarray


class ResidualParams(NamedTuple):
    """mult float32[CO] = s_in s_w / s_out * 2^F, the residual's zero point and multiplier, rs float32[1] = 2^-F.

    m_r has the factor 2^F as well; with a wide tensor, m_r's and rs's exponent is F + WIDE_RESIDUAL_BITS.
    """

    mult: np.ndarray
    zp_r: int
    m_r: int
    rs: np.ndarray

    @property
    def rp(self) -> np.ndarray:
        """The kernel argument int32[2] = (zp_r, m_r)."""
        return np.array([self.zp_r, self.m_r], np.int32)


class LayerNormParams(NamedTuple):
    """ln float32[2] = (E, K); with an affine part also g int32[C], b int32[C] and rs float32[1], else None."""

    ln: np.ndarray
    g: np.ndarray | None = None
    b: np.ndarray | None = None
    rs: np.ndarray | None = None


def _check_scale(name: str, scale: float | np.ndarray) -> None:
    values = np.asarray(scale, np.float64)
    if not np.all(np.isfinite(values)) or np.any(values <= 0):
        raise UserError(f"{name} is {scale}, a scale must be finite and greater than 0; recalibrate that tensor")


def _check_zero_point(name: str, zero_point: int, dtype: str = "int8") -> None:
    low, high = QRANGE[dtype]
    if not low <= zero_point <= high:
        raise UserError(
            f"{name} is {zero_point}, an {dtype} zero point lies in [{low}, {high}]; recalibrate that tensor"
        )


def _fraction_bits(limit: float, largest: float, what: str) -> int:
    """Return the most fraction bits F with largest * 2^F < limit, at most MAX_FRACTION_BITS; UserError if negative."""
    bits = min(MAX_FRACTION_BITS, math.floor(math.log2(limit / largest)))
    if largest * 2.0**bits >= limit:
        bits -= 1
    if bits < 0:
        raise UserError(f"{what}: the ratio of scales is too large for fixed point; recalibrate the output's range")
    return bits


def quantize_weight(weight: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Return int8 in [-127, 127]: weight / scales (per last axis), rounded half to even."""
    q = np.rint(np.asarray(weight, np.float64) / np.asarray(scales, np.float64))
    return np.clip(q, -WEIGHT_LIMIT, WEIGHT_LIMIT).astype(np.int8)


def weight_scales(weight: np.ndarray) -> np.ndarray:
    """Return float64[CO]: the largest absolute weight of each output channel over 127 (1 for an all-zero channel)."""
    weight = np.asarray(weight, np.float64)
    largest = np.abs(weight).reshape(-1, weight.shape[-1]).max(axis=0)
    return np.where(largest > 0, largest / WEIGHT_LIMIT, 1.0)


def quantize_parameters(
    weight: np.ndarray, bias: np.ndarray | None, s_in: float, scales: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (w int8, bias int32[CO] before the zero point is folded in, scales float64[CO]).

    weight is float with scales None, or int8 with its scales. Where a bias would not fit int32 at its channel's
    scale, that channel gets the smallest scale at which it fits.
    """
    _check_scale("s_in", s_in)
    if scales is None:
        scales = weight_scales(weight)
        real = np.asarray(weight, np.float64)
    else:
        scales = np.broadcast_to(np.asarray(scales, np.float64), weight.shape[-1:])
        _check_scale("scales", scales)
        real = weight.astype(np.float64) * scales
    wanted = np.zeros(weight.shape[-1]) if bias is None else np.asarray(bias, np.float64)
    widened = np.maximum(scales, np.abs(wanted) / (s_in * BIAS_LIMIT))
    keep = (widened == scales) & (weight.dtype == np.int8)
    w = np.where(keep, weight, quantize_weight(real, widened)).astype(np.int8)
    return w, np.rint(wanted / (s_in * widened)).astype(np.int64), widened


def dense_params(
    weight: np.ndarray,
    bias: np.ndarray | None,
    s_in: float,
    zp_in: int,
    s_out: float,
    scales: np.ndarray | None = None,
    x_dtype: str = "int8",
) -> DenseParams:
    """Return w, bias and mult of dense, conv2d or depthwise; UserError if a scale is not positive.

    weight float [..., CO], or int8 with `scales` float [CO]; bias float [CO] in real units or None. For float32
    logits s_out is 1.
    """
    _check_scale("s_out", s_out)
    _check_zero_point("zp_in", zp_in, x_dtype)
    w, bias_q, widened = quantize_parameters(weight, bias, s_in, scales)
    by_channel = w.reshape(-1, w.shape[-1]).astype(np.int64)
    folded = bias_q - int(zp_in) * by_channel.sum(axis=0)
    reach = np.abs(folded) - QRANGE[x_dtype][0] * np.abs(by_channel).sum(axis=0)
    if reach.max(initial=0) >= 2**31:
        raise UserError(f"{by_channel.shape[0]} products per output do not fit an int32 sum; use fewer input channels")
    mult = s_in * widened / s_out
    return DenseParams(w, folded.astype(np.int32), mult.astype(np.float32))


def residual_params(
    mult: np.ndarray, s_out: float, s_r: float, zp_r: int, out_dtype: str = "int8", r_dtype: str = "int8"
) -> ResidualParams:
    """Return the arguments of a residual epilogue, with as many fraction bits F as are safe.

    mult is that of `dense_params` (to s_out). F is the largest at which a sum saturated at 2^21 is still outside the
    output's range whatever the residual, and 255 * m_r < 2^22 (with a wide tensor, 4095 * m_r < 2^29).
    """
    _check_scale("s_out", s_out)
    _check_scale("s_r", s_r)
    _check_zero_point("zp_r", zp_r, r_dtype)
    ratio = s_r / s_out
    reach = levels(r_dtype) * ratio
    bits = _fraction_bits(FIXED_LIMIT, levels(out_dtype) + reach, "residual")
    finer = WIDE_RESIDUAL_BITS
    if "int16" not in (out_dtype, r_dtype):
        bits, finer = min(bits, _fraction_bits(RESIDUAL_LIMIT, reach, "residual")), 0
    scaled = np.asarray(mult, np.float64) * 2.0**bits
    rs = np.array([2.0 ** -(bits + finer)], np.float32)
    return ResidualParams(scaled.astype(np.float32), int(zp_r), round(ratio * 2 ** (bits + finer)), rs)


def add_params(
    s_a: float,
    zp_a: int,
    s_b: float,
    zp_b: int,
    s_out: float,
    zp_out: int,
    dtypes: tuple[str, str, str] = ("int8", "int8", "int8"),
) -> tuple[np.ndarray, np.ndarray]:
    """Return (ap int32[5] = (za, ma, zb, mb, zo), rs float32[1] = 2^-F), 255 * ma and 255 * mb below 2^22.

    dtypes of a, b and the result; if one is wide, the two products are below WIDE_SUM_LIMIT.
    """
    for name, scale in (("s_a", s_a), ("s_b", s_b), ("s_out", s_out)):
        _check_scale(name, scale)
    for name, zero_point, dtype in zip(("zp_a", "zp_b", "zp_out"), (zp_a, zp_b, zp_out), dtypes, strict=True):
        _check_zero_point(name, zero_point, dtype)
    limit = WIDE_SUM_LIMIT if "int16" in dtypes else RESIDUAL_LIMIT
    bits = _fraction_bits(limit, max(levels(dtypes[0]) * s_a, levels(dtypes[1]) * s_b) / s_out, "add")
    multipliers = [round(scale / s_out * 2**bits) for scale in (s_a, s_b)]
    ap = np.array([zp_a, multipliers[0], zp_b, multipliers[1], zp_out], np.int32)
    return ap, np.array([2.0**-bits], np.float32)


def layer_norm_params(
    eps: float,
    s_in: float,
    s_out: float,
    c: int,
    gamma: np.ndarray | None = None,
    beta: np.ndarray | None = None,
    x_dtype: str = "int8",
    out_dtype: str = "int8",
) -> LayerNormParams:
    """Return E = 16 C eps / s_in^2 and K = 4 / (sqrt(C) s_out); with gamma or beta the affine arguments, and K without
    s_out but with 2^AFFINE_SHIFT. For a wide input 16 and its root 4 are both 1."""
    _check_scale("s_in", s_in)
    _check_scale("s_out", s_out)
    _check_scale("eps", eps)
    factor, shift = deviation_factor(x_dtype), affine_shift(out_dtype)
    root = math.sqrt(factor)
    e = factor * c * eps / s_in**2
    if gamma is None and beta is None:
        return LayerNormParams(np.array([e, root / (math.sqrt(c) * s_out)], np.float32))
    gamma = np.ones(c) if gamma is None else np.asarray(gamma, np.float64)
    beta = np.zeros(c) if beta is None else np.asarray(beta, np.float64)
    # |x - mean| / std is at most sqrt(C - 1) (Samuelson's inequality).
    largest = np.max((math.sqrt(c) + 1) * np.abs(gamma) + np.abs(beta)) / s_out * 2.0**shift
    bits = _fraction_bits(2.0**30, max(float(largest), 1.0), "layer_norm")
    ln = np.array([e, root * 2**shift / math.sqrt(c)], np.float32)
    g = np.rint(gamma / s_out * 2.0**bits).astype(np.int32)
    b = np.rint(beta / s_out * 2.0 ** (bits + shift)).astype(np.int32)
    return LayerNormParams(ln, g, b, np.array([2.0 ** -(bits + shift)], np.float32))


def lut_params(
    fn: Callable[[np.ndarray], np.ndarray], s_in: float, zp_in: int, s_out: float, zp_out: int
) -> np.ndarray:
    """Return int8[256]: quantize(fn(dequantize(q))) for q = -128 .. 127; `fn` maps float64 arrays elementwise."""
    _check_scale("s_in", s_in)
    _check_scale("s_out", s_out)
    _check_zero_point("zp_in", zp_in)
    _check_zero_point("zp_out", zp_out)
    real = (np.arange(-128, 128, dtype=np.float64) - zp_in) * s_in
    values = np.asarray(fn(real), np.float64) / s_out
    if np.any(np.isnan(values)):
        raise UserError(f"the function is not a number at {real[np.isnan(values)][0]:g}; it cannot become a table")
    # Clip before rounding: an infinite value has no integer.
    return (np.rint(np.clip(values, -128 - zp_out, 127 - zp_out)) + zp_out).astype(np.int8)


def xca_params(temperature: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """tau float32[heads] = temperature * log2(e) * 2^8, exp_table int32[256] = round(127 * 2^16 * 2^(-f/256))."""
    tau = np.asarray(temperature, np.float64).reshape(-1) * math.log2(math.e) * 2**LOGIT_FRACTION_BITS
    fraction = np.arange(1 << LOGIT_FRACTION_BITS, dtype=np.float64) / (1 << LOGIT_FRACTION_BITS)
    table = np.rint(SCORE_LIMIT * 2**TABLE_FRACTION_BITS * np.exp2(-fraction))
    return tau.astype(np.float32), table.astype(np.int32)


def xca_apply_params(s_v: float, s_out: float) -> np.ndarray:
    """Return scale float32[1] = s_v / s_out."""
    _check_scale("s_v", s_v)
    _check_scale("s_out", s_out)
    return np.array([s_v / s_out], np.float32)


def rescale_params(s_in: float, s_out: float) -> np.ndarray:
    """Return mult float32[1] = s_in / s_out."""
    _check_scale("s_in", s_in)
    _check_scale("s_out", s_out)
    return np.array([s_in / s_out], np.float32)


def pool_params(s_in: float, s_out: float, h: int, w: int) -> np.ndarray:
    """Return mult float32[1] = s_in / (s_out * H * W)."""
    _check_scale("s_in", s_in)
    _check_scale("s_out", s_out)
    return np.array([s_in / (s_out * h * w)], np.float32)
