"""Single AArch64 vector instructions as TIR expressions, for schedules that name the instruction they want.

Each function returns the expression that LLVM selects as the instruction in its docstring. Vectors are written as
(lanes)x(bits): 16x8 is one 128-bit register of int8. Instructions that LLVM finds by pattern (sshll, smull2, sadalp,
smlal, sqxtn2, scvtf) are written as that pattern.
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx
from tvm.tirx import Expr


def lanes_of(x: Expr) -> int:
    """Return how many lanes a vector has."""
    dtype = str(x.ty.dtype) if hasattr(x.ty, "dtype") else str(x.dtype)
    return int(dtype.partition("x")[2] or 1)


def _call(dtype: str, name: str, *args: Expr) -> Expr:
    return tirx.call_llvm_pure_intrin(dtype, f"llvm.aarch64.neon.{name}", *args)


def splat(x: Expr, lanes: int) -> Expr:
    """Return a scalar in every lane (dup)."""
    return tirx.Broadcast(x, lanes)


def shuffle(vectors: Sequence[Expr], indices: Sequence[int]) -> Expr:
    """Return lanes `indices` of the concatenated `vectors`."""
    vectors = list(vectors)
    # A Shuffle has at most as many results as inputs.
    while sum(map(lanes_of, vectors)) < len(indices):
        vectors += vectors
    return tirx.Shuffle(vectors, [tirx.IntImm("int32", i) for i in indices])


def low(x: Expr, lanes: int) -> Expr:
    """Return the first `lanes` lanes."""
    return shuffle([x], range(lanes))


def high(x: Expr, lanes: int) -> Expr:
    """Return lanes [lanes, 2 * lanes)."""
    return shuffle([x], range(lanes, 2 * lanes))


def concat(*vectors: Expr) -> Expr:
    """Return all lanes in order, as one vector."""
    if len(vectors) == 1:
        return vectors[0]
    return shuffle(vectors, range(sum(lanes_of(v) for v in vectors)))


def sdot(acc: Expr, a: Expr, b: Expr) -> Expr:
    """sdot: int32x4 acc[i] + sum of a[4i+j] * b[4i+j], int8x16 each (dotprod extension)."""
    return _call("int32x4", "sdot", acc, a, b)


def dup_quad(x: Expr, index: int) -> Expr:
    """Return int8x16: bytes [4 * index, 4 * index + 4) of int8 `x` four times; sdot takes it as an indexed operand."""
    if lanes_of(x) == 4:
        return tirx.reinterpret("int8x16", splat(tirx.reinterpret("int32", x), 4))
    words = tirx.reinterpret(f"int32x{lanes_of(x) // 4}", x)
    return tirx.reinterpret("int8x16", shuffle([words], [index] * 4))


def smull(a: Expr, b: Expr) -> Expr:
    """smull: int16x8 products of int8x8, or int32x4 products of int16x4."""
    return _call("int16x8" if lanes_of(a) == 8 else "int32x4", "smull", a, b)


def pairs(x: Expr) -> Expr:
    """saddlp: sums of neighbours, int16x8 of int8x16 or int32x4 of int16x8."""
    return _call("int16x8" if lanes_of(x) == 16 else "int32x4", "saddlp", x)


def sadalp(acc: Expr, pairs: Expr) -> Expr:
    """sadalp: int32x4 acc[i] + pairs[2i] + pairs[2i+1], pairs int16x8."""
    return acc + _call("int32x4", "saddlp", pairs)


def addp(a: Expr, b: Expr) -> Expr:
    """addp: int32x4 sums of neighbours, of `a` in the low half and of `b` in the high half."""
    return _call("int32x4", "addp", a, b)


def round_to_int32(f: Expr) -> Expr:
    """fcvtns: float32 rounded half to even, saturated to int32."""
    return _call(f"int32x{lanes_of(f)}", "fcvtns", f)


def narrow_to_int16(x: Expr) -> Expr:
    """sqxtn: int32x4 saturated to int16x4."""
    return _call("int16x4", "sqxtn", x)


def narrow_to_int8(x: Expr) -> Expr:
    """sqxtn: int16x8 saturated to int8x8."""
    return _call("int8x8", "sqxtn", x)


def saturating_add(a: Expr, b: Expr) -> Expr:
    """sqadd of int16x8."""
    return _call(f"int16x{lanes_of(a)}", "sqadd", a, b)


def look_up(table: Sequence[Expr], index: Expr) -> Expr:
    """tbl, tbx: the bytes of a 256-byte table (sixteen int8x16) at unsigned int8x16 `index`."""
    found = _call("int8x16", "tbl4", *table[:4], index)
    for part in range(1, 4):
        index = index - splat(tirx.const(64, "int8"), 16)
        found = _call("int8x16", "tbx4", found, *table[4 * part : 4 * part + 4], index)
    return found
