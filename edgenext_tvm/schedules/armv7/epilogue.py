"""What follows int32 sums on Armv7, four channels a register: the same bits as kernels.epilogue.

Rounding adds 1.5 * 2^23 and takes that constant's bits off again, in integers, together with the zero point; then two
saturating narrowings stand for the clamp to [-128 - zp, 127 - zp] before the rounding. Both give the same: the bounds
are integers, rounding is monotone, and a float above 2^22 or below -2^22 is an int32 beyond int16 after the
subtraction. The lower bound -2^22 in between keeps the subtraction from wrapping, and the multiply from being fused
with the add, which would round once instead of twice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx import Expr
from tvm.tirx.script.builder import ir as T

from ...intrinsics import armv7_neon as neon
from ...intrinsics.arm_neon import splat
from ...kernels.requantize import FIXED_LIMIT, ROUNDING_MAGIC, ROUNDING_MAGIC_BITS
from ..arm64.function import bind, loop
from ..vector_unit import largest_divisor

LOWEST = -float(1 << 22)
MAX_UNROLLED_BYTES = 16


def float_vector(value: float) -> Expr:
    """float32x4 of a constant."""
    return splat(tirx.const(value, "float32"), 4)


def scaled(acc: Expr, multiplier: Expr) -> Expr:
    """float32x4: int32x4 acc * multiplier."""
    return acc.astype("float32x4") * multiplier


def rounded_bits(f: Expr) -> Expr:
    """int32x4 bits of f + 1.5 * 2^23, f no bare product."""
    return tirx.reinterpret("int32x4", f + float_vector(ROUNDING_MAGIC))


def fixed_from_float(f: Expr) -> Expr:
    """int32x4: kernels.requantize.fixed_from_float."""
    limit = float(FIXED_LIMIT)
    f = neon.minimum(neon.maximum(f, float_vector(-limit)), float_vector(limit))
    return rounded_bits(f) - splat(tirx.const(ROUNDING_MAGIC_BITS, "int32"), 4)


@dataclass(frozen=True)
class Requantize:
    """Turns float32x4 products into int8, given the output's zero point once.

    index: the results are the bytes 0 to 255 that a table is read at, for -128 to 127.
    """

    offset: Expr
    index: bool

    @staticmethod
    def to(zero_point: Expr, index: bool = False) -> Requantize:
        """Emit what all requantizations to a zero point share."""
        value = zero_point + tirx.const((128 if index else 0) - ROUNDING_MAGIC_BITS, "int32")
        return Requantize(bind(splat(value, 4), "offset"), index)

    def quad(self, product: Expr) -> Expr:
        """int16x4, saturated."""
        f = neon.maximum(product, float_vector(LOWEST))
        return neon.narrow_to_int16(rounded_bits(f) + self.offset)

    def eight(self, first: Expr, second: Expr) -> tirx.Var:
        """int8x8 of two quads of products."""
        narrow = neon.narrow_to_uint8 if self.index else neon.narrow_to_int8
        return bind(narrow(neon.concat(self.quad(first), self.quad(second))), "q")


def residual_quads(r: Expr) -> list[Expr]:
    """int32x4 quads of an int8x8 or of an int8x4."""
    wide = bind(r.astype(f"int16x{neon.lanes_of(r)}"), "r")
    if neon.lanes_of(r) == 4:
        return [wide.astype("int32x4")]
    return [neon.low(wide, 4).astype("int32x4"), neon.high(wide, 4).astype("int32x4")]


def emit_look_up(y: tirx.Buffer, first: Expr, lut: tirx.Buffer, size: int) -> None:
    """Replace `size` bytes of one-dimensional y, indices of a table, by its entries.

    Byte by byte: a table of 256 entries fills all of Armv7's vector registers.
    """
    unrolled = largest_divisor(size, MAX_UNROLLED_BYTES)
    with loop(size // unrolled, "block") as block:
        for u in range(unrolled):
            at = first + block * unrolled + u
            T.buffer_store(y, lut[y[at].astype("uint8").astype("int32")], [at])


def flat(buffer: tirx.Buffer) -> tirx.Buffer:
    """The same memory as one axis."""
    size = math.prod(int(extent) for extent in buffer.shape)
    alias = T.decl_buffer((size,), str(buffer.dtype), data=buffer.data)
    IRBuilder.name(f"{buffer.name}_flat", alias)
    return alias
