"""AVX-512 instructions as expressions of TIR on 512-bit vectors: what LLVM does not find by itself in plain loops.

Each function states its element types; `lane` is a block of 128 bits. Needs AVX512BW, and where said VNNI or VBMI.
"""

from __future__ import annotations

from tvm import tirx
from tvm.tirx import Expr

ZMM_BYTES = 64
FLIP = 0x80
"""XOR with it turns int8 x into uint8 x + 128."""


def _intrinsic(dtype: str, name: str, *operands: Expr) -> Expr:
    return tirx.call_llvm_pure_intrin(dtype, name, *operands)


def load_bytes(buffer: tirx.Buffer, indices: list[Expr | int], count: int) -> Expr:
    """Return int8x64: `count` bytes from `indices` along the last axis, then zeros; nothing beyond them is read."""
    *outer, first = indices
    if count == ZMM_BYTES:
        return buffer[(*outer, tirx.Ramp(first if isinstance(first, tirx.Expr) else tirx.const(first, "int32"), 1, 64))]
    lanes = tirx.Ramp(tirx.const(0, "int32"), 1, ZMM_BYTES)
    mask = lanes < tirx.Broadcast(tirx.const(count, "int32"), ZMM_BYTES)
    address = tirx.address_of(buffer[tuple(indices)])
    return _intrinsic("int8x64", "llvm.masked.load.v64i8.p0", address, mask, splat(0, "int8", ZMM_BYTES))


def splat(value: Expr | int | float, dtype: str, lanes: int) -> Expr:
    """Return `lanes` copies of a scalar."""
    scalar = value if isinstance(value, tirx.Expr) else tirx.const(value, dtype)
    return tirx.Broadcast(scalar, lanes)


def as_type(dtype: str, value: Expr) -> Expr:
    """Return the same bits as another vector type."""
    return value if str(value.ty.dtype) == dtype else tirx.reinterpret(dtype, value)


def shuffle(value: Expr, indices: list[int]) -> Expr:
    """Return the elements of one vector in the order of `indices`."""
    return tirx.Shuffle([value], [tirx.const(i, "int32") for i in indices])


def widen(value: Expr, lanes: int, wanted: int) -> Expr:
    """Return a vector of `lanes` elements as one of `wanted`; the elements beyond repeat it."""
    if lanes == wanted:
        return value
    if lanes == 1:
        return tirx.Broadcast(value, wanted)
    return tirx.Shuffle([value] * -(-wanted // lanes), [tirx.const(i, "int32") for i in range(wanted)])


def flip(word: Expr) -> Expr:
    """Return four int8 in an int32 as four uint8, each 128 more.

    A scalar: LLVM 22 does not terminate on the same operation after the broadcast.
    """
    return word ^ tirx.const(FLIP * 0x01010101 - (1 << 32), "int32")


def dot_unsigned_signed(acc: Expr, unsigned: Expr, signed: Expr) -> Expr:
    """Return int32x16 acc + four products uint8 * int8 per element, wrapping (vpdpbusd, VNNI)."""
    operands = (as_type("int8x64", unsigned), as_type("int8x64", signed))
    return _intrinsic("int32x16", "llvm.x86.avx512.vpdpbusd.512", acc, *operands)


def dot_unsigned_signed_half(acc: Expr, unsigned: Expr, signed: Expr) -> Expr:
    """Return int32x8 acc + four products uint8 * int8 per element, wrapping (vpdpbusd of 256 bits, VNNI and VL)."""
    operands = (as_type("int8x32", unsigned), as_type("int8x32", signed))
    return _intrinsic("int32x8", "llvm.x86.avx512.vpdpbusd.256", acc, *operands)


def dot_int16(acc: Expr, left: Expr, right: Expr) -> Expr:
    """Return int32x16 acc + two products int16 * int16 per element, wrapping (vpdpwssd, VNNI)."""
    operands = (as_type("int16x32", left), as_type("int16x32", right))
    return _intrinsic("int32x16", "llvm.x86.avx512.vpdpwssd.512", acc, *operands)


def round_half_even(value: Expr) -> Expr:
    """Return float32x16 as int32x16, rounded half to even; -2^31 where it does not fit (vcvtps2dq)."""
    nothing = splat(0, "int32", 16)
    mask, current_rounding = tirx.const(-1, "int16"), tirx.const(4, "int32")
    return _intrinsic("int32x16", "llvm.x86.avx512.mask.cvtps2dq.512", value, nothing, mask, current_rounding)


def pack_int32(low: Expr, high: Expr) -> Expr:
    """Return two int32x16 as int16x32, saturated; per lane four of `low`, then four of `high` (vpackssdw)."""
    return _intrinsic("int16x32", "llvm.x86.avx512.packssdw.512", low, high)


def pack_int16(low: Expr, high: Expr) -> Expr:
    """Return two int16x32 as int8x64, saturated; per lane eight of `low`, then eight of `high` (vpacksswb)."""
    return _intrinsic("int8x64", "llvm.x86.avx512.packsswb.512", low, high)


def add_saturated(left: Expr, right: Expr) -> Expr:
    """Return int16x32 left + right, saturated (vpaddsw)."""
    return _intrinsic("int16x32", "llvm.sadd.sat.v32i16", left, right)


def lookup_128(low: Expr, high: Expr, index: Expr) -> Expr:
    """Return int8x64 entries of the 128-byte table low|high at the low seven bits of `index` (vpermi2b, VBMI)."""
    return _intrinsic("int8x64", "llvm.x86.avx512.vpermi2var.qi.512", low, index, high)


def gather_int32(table: tirx.Buffer, index: Expr) -> Expr:
    """Return int32x16 table[index] (vpgatherdd)."""
    address = tirx.address_of(table[0])
    everywhere = tirx.Broadcast(tirx.const(True, "bool"), 16)
    name = "llvm.x86.avx512.mask.gather.dpi.512"
    return _intrinsic("int32x16", name, splat(0, "int32", 16), address, index, everywhere, tirx.const(4, "int32"))
