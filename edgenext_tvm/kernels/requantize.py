"""The one rounding every kernel shares, as TIR expressions and as NumPy twins: the same bits on every target.

`requant`: float32(acc) * m, clamped in float to the result's range (int8's or a wide tensor's, see `wide`) seen from
the zero point, rounded half to even, plus the zero point. `fixed`: the same rounding to a clamped int32. Rounding adds
1.5 * 2^23, whose unit in the last place is 1, so the mantissa holds the rounded integer (valid for |f| < 2^22). The
clamp stands between the multiply and that add: a compiler that contracts a multiply feeding an add into a fused
multiply-add finds nothing to contract.
"""

from __future__ import annotations

import numpy as np
from tvm import tirx

from .wide import QRANGE

ROUNDING_MAGIC = 12582912.0
"""1.5 * 2^23."""
ROUNDING_MAGIC_BITS = 0x4B400000
FIXED_LIMIT = 1 << 21
"""Bound of `fixed`'s result."""


def _const(value: float, dtype: str) -> tirx.Expr:
    return tirx.const(value, dtype)


def to_int32(x: tirx.Expr) -> tirx.Expr:
    """Return `x` as int32."""
    return x.astype("int32")


def to_float32(x: tirx.Expr) -> tirx.Expr:
    """Return `x` as float32, rounded half to even where int32 exceeds 2^24."""
    return x.astype("float32")


def round_half_even_expr(f: tirx.Expr) -> tirx.Expr:
    """Return float32 `f`, |f| < 2^22, rounded half to even as int32. `f` must not be a bare product."""
    bits = tirx.reinterpret("int32", f + _const(ROUNDING_MAGIC, "float32"))
    return bits - _const(ROUNDING_MAGIC_BITS, "int32")


def requant_expr(acc: tirx.Expr, multiplier: tirx.Expr, zero_point: tirx.Expr, dtype: str = "int8") -> tirx.Expr:
    """Return int8 (or int16: wide): int32 `acc` times float32 `multiplier`, rounded half to even, plus int32
    `zero_point`, saturated at the range of `dtype`."""
    qmin, qmax = QRANGE[dtype]
    f = to_float32(acc) * multiplier
    low = to_float32(_const(qmin, "int32") - zero_point)
    high = to_float32(_const(qmax, "int32") - zero_point)
    f = tirx.min(tirx.max(f, low), high)
    return (round_half_even_expr(f) + zero_point).astype(dtype)


def fixed_expr(acc: tirx.Expr, multiplier: tirx.Expr) -> tirx.Expr:
    """Return int32: int32 `acc` times float32 `multiplier`, rounded half to even, clamped to +-2^21."""
    return fixed_from_float_expr(to_float32(acc) * multiplier)


def fixed_from_float_expr(f: tirx.Expr) -> tirx.Expr:
    """Return int32: float32 `f` clamped to +-2^21, rounded half to even."""
    limit = float(FIXED_LIMIT)
    f = tirx.min(tirx.max(f, _const(-limit, "float32")), _const(limit, "float32"))
    return round_half_even_expr(f)


def lut_expr(lut: tirx.Buffer, q: tirx.Expr) -> tirx.Expr:
    """Return the entry of a 256-entry table for int8 `q`; entry 0 belongs to -128."""
    return lut[to_int32(q) + _const(128, "int32")]


def requant(acc: np.ndarray, multiplier: np.ndarray, zero_point: int, dtype: str = "int8") -> np.ndarray:
    """NumPy twin of `requant_expr`."""
    qmin, qmax = QRANGE[dtype]
    f = acc.astype(np.float32) * np.asarray(multiplier, np.float32)
    f = np.clip(f, np.float32(qmin - int(zero_point)), np.float32(qmax - int(zero_point)))
    return (np.rint(f).astype(np.int32) + np.int32(zero_point)).astype(dtype)


def fixed(acc: np.ndarray, multiplier: np.ndarray) -> np.ndarray:
    """NumPy twin of `fixed_expr`."""
    return fixed_from_float(acc.astype(np.float32) * np.asarray(multiplier, np.float32))


def fixed_from_float(f: np.ndarray) -> np.ndarray:
    """NumPy twin of `fixed_from_float_expr`."""
    limit = np.float32(FIXED_LIMIT)
    return np.rint(np.clip(f.astype(np.float32), -limit, limit)).astype(np.int32)


def lut(table: np.ndarray, q: np.ndarray) -> np.ndarray:
    """NumPy twin of `lut_expr`."""
    return table[q.astype(np.int32) + 128]
