"""The integer and float arguments of kernels, computed from scales and zero points: ``real = scale * (q - zero_point)``.

All arithmetic is float64, rounded once at the end. Every bound that a kernel's fixed-point steps rely on is
established here.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .layer_norm import AFFINE_SHIFT
from .requantize import FIXED_LIMIT
from .xca_scores import LOGIT_FRACTION_BITS, TABLE_FRACTION_BITS

INT32_MAX = 2**31 - 1
MAX_ADD_SHIFT = 16
"""Fractional bits of a fixed-point sum: more would not change an 8-bit result."""


def _round(values: np.ndarray, limit: int = INT32_MAX) -> np.ndarray:
    return np.clip(np.rint(values), -limit, limit).astype(np.int32)


def dense_params(
    weight: np.ndarray, weight_scale: np.ndarray, bias: np.ndarray, scale_in: float, zero_point_in: int, scale_out: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (weight int8, bias int32[CO], mult float32[CO]) of a layer whose int8 weight has CO as its last axis.

    `weight_scale` and `bias` are float[CO]. The bias has the input's zero point folded in:
    ``acc = sum(q_x * q_w) + bias`` equals ``sum((q_x - z) * q_w) + b / (s_x * s_w)``; ``mult = s_x * s_w / s_out``.
    """
    weight_scale = weight_scale.astype(np.float64)
    sums = weight.astype(np.int64).reshape(-1, weight.shape[-1]).sum(axis=0)
    bias_int = np.rint(bias.astype(np.float64) / (scale_in * weight_scale))
    # Half of int32 is left to the products, so that the accumulator cannot overflow.
    folded = _round(np.clip(bias_int, -(2**30), 2**30) - zero_point_in * sums)
    mult = (scale_in * weight_scale / scale_out).astype(np.float32)
    return np.ascontiguousarray(weight), folded, mult


def residual_params(
    mult: np.ndarray, scale_residual: float, zero_point_residual: int, scale_out: float
) -> tuple[np.ndarray, int, int, float]:
    """Return (mult float32[CO], zp_r, m_r, rs): a layer's multipliers and its residual's in fixed point.

    Both summands have F fractional bits, the most for which the residual's part stays below 2^22 and the
    layer's part, clamped to 2^21, still covers twice the int8 range of the output.
    """
    ratio = scale_residual / scale_out
    shift = _shift_for(ratio)
    scaled = (mult.astype(np.float64) * 2.0**shift).astype(np.float32)
    return scaled, zero_point_residual, int(np.rint(ratio * 2.0**shift)), 2.0**-shift


def _shift_for(*ratios: float) -> int:
    """Return F with 255 * ratio * 2^F < 2^22 for each ratio, and 512 * 2^F <= FIXED_LIMIT."""
    shift = int(math.log2(FIXED_LIMIT)) - 9
    for ratio in ratios:
        shift = min(shift, math.floor(math.log2(2.0**22 / (256.0 * ratio))))
    return max(shift, 0)


def add_params(
    scale_a: float, zero_point_a: int, scale_b: float, zero_point_b: int, scale_out: float, zero_point_out: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return (ap int32[5] = (za, ma, zb, mb, zo), rs float32[1] = 2^-F) of the sum of two int8 tensors."""
    ratios = (scale_a / scale_out, scale_b / scale_out)
    shift = min(MAX_ADD_SHIFT, max(0, math.floor(math.log2(2.0**22 / (256.0 * max(ratios))))))
    ma, mb = (int(np.rint(ratio * 2.0**shift)) for ratio in ratios)
    ap = np.array([zero_point_a, ma, zero_point_b, mb, zero_point_out], np.int32)
    return ap, np.array([2.0**-shift], np.float32)


def layer_norm_params(
    epsilon: float, scale_in: float, scale_out: float, c: int, gamma: np.ndarray | None = None, beta: np.ndarray | None = None
) -> tuple[np.ndarray, ...]:
    """Return (ln float32[2],) or with gamma and beta (ln, g int32[C], b int32[C], rs float32[1]); see `LayerNorm`.

    g has at most 14 bits and b at most 29, so that fixed * g + b fits int32 for |x - mean| / sigma <= sqrt(C).
    """
    offset = max(16.0 * c * epsilon / (scale_in * scale_in), 1e-30)
    if gamma is None or beta is None:
        return (np.array([offset, 4.0 / (math.sqrt(c) * scale_out)], np.float32),)
    ln = np.array([offset, 4.0 * 2.0**AFFINE_SHIFT / math.sqrt(c)], np.float32)
    largest = max(float(np.abs(gamma).max()) / scale_out, 1e-12)
    largest_bias = max(float(np.abs(beta).max()) / scale_out, 1e-12)
    normalised_bits = AFFINE_SHIFT + math.ceil(math.log2(math.sqrt(c)))
    shift = math.floor(min(29 - normalised_bits - math.log2(largest), 29 - AFFINE_SHIFT - math.log2(largest_bias), 20))
    g = _round(gamma.astype(np.float64) / scale_out * 2.0**shift)
    b = _round(beta.astype(np.float64) / scale_out * 2.0 ** (shift + AFFINE_SHIFT))
    return ln, g, b, np.array([2.0 ** -(shift + AFFINE_SHIFT)], np.float32)


def lut_params(
    function: Callable[[np.ndarray], np.ndarray], scale_in: float, zero_point_in: int, scale_out: float, zero_point_out: int
) -> np.ndarray:
    """Return int8[256], indexed by q + 128: `function` (float64 to float64, elementwise) quantized at every input."""
    real = scale_in * (np.arange(-128, 128, dtype=np.float64) - zero_point_in)
    levels = np.rint(np.nan_to_num(function(real)) / scale_out) + zero_point_out
    return np.clip(levels, -128, 127).astype(np.int8)


def xca_params(temperature: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (tau float32[heads], exp_table int32[256]) of `XcaScores` for the float temperatures of its heads."""
    tau = (temperature.astype(np.float64) * math.log2(math.e) * 2**LOGIT_FRACTION_BITS).astype(np.float32)
    fractions = np.arange(2**LOGIT_FRACTION_BITS, dtype=np.float64) / 2**LOGIT_FRACTION_BITS
    return tau, np.rint(127.0 * 2**TABLE_FRACTION_BITS * 2.0**-fractions).astype(np.int32)


def pool_params(scale_in: float, scale_out: float, h: int, w: int) -> np.ndarray:
    """Return mult float32[1] of the mean over H * W pixels."""
    return np.array([scale_in / (scale_out * h * w)], np.float32)
