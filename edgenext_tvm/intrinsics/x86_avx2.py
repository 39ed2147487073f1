"""AVX2 instructions as expressions of TIR on 256-bit vectors: what LLVM does not find by itself in plain loops.

Each function states its element types; `lane` is a block of 128 bits. Needs AVX2, and where said AVX-VNNI.
"""

from __future__ import annotations

from tvm import tirx
from tvm.tirx import Expr

from .x86 import as_type, shuffle, splat, widen

__all__ = ["as_type", "shuffle", "splat", "widen"]

YMM_BYTES = 32


def _intrinsic(dtype: str, name: str, *operands: Expr) -> Expr:
    return tirx.call_llvm_pure_intrin(dtype, name, *operands)


def dot_int16(acc: Expr, left: Expr, right: Expr) -> Expr:
    """Return int32x8 acc + two products int16 * int16 per element, wrapping (vpmaddwd, vpaddd)."""
    operands = (as_type("int16x16", left), as_type("int16x16", right))
    return acc + _intrinsic("int32x8", "llvm.x86.avx2.pmadd.wd", *operands)


def dot_unsigned_signed(acc: Expr, unsigned: Expr, signed: Expr) -> Expr:
    """Return int32x8 acc + four products uint8 * int8 per element, wrapping (vpdpbusd, AVX-VNNI)."""
    operands = (as_type("int8x32", unsigned), as_type("int8x32", signed))
    return _intrinsic("int32x8", "llvm.x86.avx512.vpdpbusd.256", acc, *operands)


def round_half_even(value: Expr) -> Expr:
    """Return float32x8 as int32x8, rounded half to even; -2^31 where it does not fit (vcvtps2dq)."""
    return _intrinsic("int32x8", "llvm.x86.avx.cvt.ps2dq.256", value)


def pack_int32(low: Expr, high: Expr) -> Expr:
    """Return two int32x8 as int16x16, saturated; per lane four of `low`, then four of `high` (vpackssdw)."""
    return _intrinsic("int16x16", "llvm.x86.avx2.packssdw", low, high)


def pack_int16(low: Expr, high: Expr) -> Expr:
    """Return two int16x16 as int8x32, saturated; per lane eight of `low`, then eight of `high` (vpacksswb)."""
    return _intrinsic("int8x32", "llvm.x86.avx2.packsswb", low, high)


def add_saturated(left: Expr, right: Expr) -> Expr:
    """Return int16x16 left + right, saturated (vpaddsw)."""
    return _intrinsic("int16x16", "llvm.sadd.sat.v16i16", left, right)


def subtract_saturated(left: Expr, right: Expr) -> Expr:
    """Return int8x32 left - right, saturated (vpsubsb)."""
    return _intrinsic("int8x32", "llvm.ssub.sat.v32i8", left, right)


def lookup_16(table: Expr, index: Expr) -> Expr:
    """Return int8x32 entries of a lane's 16-byte table at the low four bits of `index`, 0 where it is negative.

    table: int8x32, each lane's own (vpshufb).
    """
    return _intrinsic("int8x32", "llvm.x86.avx2.pshuf.b", table, index)


def gather_int32(table: tirx.Buffer, index: Expr) -> Expr:
    """Return int32x8 table[index] (vpgatherdd)."""
    address, everywhere = tirx.address_of(table[0]), splat(-1, "int32", 8)
    name = "llvm.x86.avx2.gather.d.d.256"
    return _intrinsic("int32x8", name, splat(0, "int32", 8), address, index, everywhere, tirx.const(4, "int8"))
