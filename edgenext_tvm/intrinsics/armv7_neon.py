"""Single Armv7 NEON instructions as TIR expressions, for schedules that name the instruction they want.

Each function returns the expression that LLVM selects as the instruction in its docstring. A q register is a vector
of 128 bits, a d register one half of it. What is written alike on AArch64 (splat, shuffle, low, high, concat) lies in
`arm_neon`.
"""

from __future__ import annotations

from tvm import tirx
from tvm.tirx import Expr

from .arm_neon import concat, high, lanes_of, low

__all__ = ["concat", "high", "lanes_of", "low"]


def _call(dtype: str, name: str, *args: Expr) -> Expr:
    return tirx.call_llvm_pure_intrin(dtype, f"llvm.arm.neon.{name}", *args)


def vmull(a: Expr, b: Expr) -> Expr:
    """vmull: int16x8 products of int8x8, or int32x4 products of int16x4; added to a sum it becomes vmlal."""
    return _call("int16x8" if lanes_of(a) == 8 else "int32x4", "vmulls", a, b)


def vpaddl(x: Expr) -> Expr:
    """vpaddl: sums of neighbours, int32x4 of int16x8 or int16x8 of int8x16."""
    return _call("int32x4" if lanes_of(x) == 8 else "int16x8", "vpaddls", x)


def vpadal(acc: Expr, x: Expr) -> Expr:
    """vpadal: acc[i] + x[2i] + x[2i+1], int32x4 and int16x8 or int16x8 and int8x16."""
    return _call(_dtype(acc), "vpadals", acc, x)


def add_pairs(a: Expr, b: Expr) -> Expr:
    """vpadd: int32x2 (a[0] + a[1], b[0] + b[1])."""
    return _call("int32x2", "vpadd", a, b)


def maximum(a: Expr, b: Expr) -> Expr:
    """vmax: float32 or int32 vectors, larger of each lane."""
    return _call(_dtype(a), "vmaxs", a, b)


def minimum(a: Expr, b: Expr) -> Expr:
    """vmin: float32 or int32 vectors, smaller of each lane."""
    return _call(_dtype(a), "vmins", a, b)


def narrow_to_int16(x: Expr) -> Expr:
    """vqmovn: int32x4 saturated to int16x4."""
    return _call("int16x4", "vqmovns", x)


def narrow_to_int8(x: Expr) -> Expr:
    """vqmovn: int16x8 saturated to int8x8."""
    return _call("int8x8", "vqmovns", x)


def narrow_to_uint8(x: Expr) -> Expr:
    """vqmovun: int16x8 saturated to [0, 255], as the bits of int8x8."""
    return tirx.reinterpret("int8x8", _call("uint8x8", "vqmovnsu", x))


def _dtype(x: Expr) -> str:
    return str(x.ty.dtype) if hasattr(x.ty, "dtype") else str(x.dtype)
