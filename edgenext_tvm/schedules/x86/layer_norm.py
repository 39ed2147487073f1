"""LayerNorm with AVX-512: up to 16 rows at once, so that one vector holds every row's sum, variance and multiplier."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from tvm import tirx
from tvm.tirx.script.builder import ir as T

from ...intrinsics import x86
from ...kernels import LayerNorm
from ...kernels import requantize as rq
from ...kernels.packing import Packing
from ..space import Knob, Space
from ..vector_unit import divisors
from .emit import LANES, Expr, Register, bind, build_function, load
from .epilogue import MAX_VECTORS, store_requantized

SUM_BYTES = 4
"""Bytes of inputs that one element of a sum takes at once."""


@dataclasses.dataclass(frozen=True)
class WrappedChannels(Packing):
    """A value per channel, [C] followed by its first `lanes` again, so that a vector may go over the end of a row."""

    lanes: int

    kind = "wrapped_channels"

    def pack(self, *arrays: np.ndarray) -> np.ndarray:
        """See the class docstring."""
        (values,) = arrays
        return np.resize(values, values.size + self.lanes)


def layer_norm_space(kernel: LayerNorm, func: tirx.PrimFunc) -> Space:
    """Return the space of a layer norm: how many rows share a vector."""
    rows = tuple(d for d in divisors(kernel.t) if d <= LANES)
    knob = Knob("rows", rows, rows[-1])
    return Space("x86_vnni.layer_norm", lambda d: build_layer_norm(kernel, func, d["rows"]), (knob,))


def build_layer_norm(kernel: LayerNorm, func: tirx.PrimFunc, rows: int) -> tirx.PrimFunc:
    """Return `func` for AVX-512: sums by vpdpbusd, C * q - S by vpdpwssd."""
    c = kernel.c

    def body(*buffers: tirx.Buffer) -> None:
        x, ln, qp, *affine, y = buffers
        zero_point = bind("zp_out", qp[0])
        with T.parallel(kernel.t // rows) as chunk:
            first = bind("row", chunk * rows)
            sums, squares = row_sums(x, first, rows, c)
            used = min(LANES, -(-c * (2 if kernel.multiplies_wide else 1) // SUM_BYTES))
            total = bind("total", transposed_sum(sums, LANES, used))
            square = transposed_sum(squares, LANES, used)
            if not kernel.multiplies_wide:
                # x + 128 times x, summed, is the sum of squares plus 128 times the sum.
                square = square - (total << x86.splat(7, "int32", LANES))
            square = bind("square", square)
            variance = kernel.variance_expr(total, square).astype("float32x16") + x86.splat(ln[0], "float32", LANES)
            scale, negative = Register("scale", "float32"), Register("negative")
            scale.set(x86.splat(ln[1], "float32", LANES) / tirx.sqrt(variance))
            negative.set(x86.splat(0, "int32", LANES) - total)
            # From here on rows do not matter: 64 neighbours at a time, whichever rows they belong to.
            for begin in range(0, rows * c, MAX_VECTORS * LANES):
                count = min(MAX_VECTORS * LANES, rows * c - begin)
                values, factors = [], []
                for offset in range(begin, begin + count, LANES):
                    position = [first + offset // c, offset % c]
                    start = bind("start", by_row(negative.buffer, offset, rows, c))
                    multiplier = bind("multiplier", by_row(scale.buffer, offset, rows, c))
                    value = centre(x, position, min(LANES, rows * c - offset), start, c)
                    if affine:
                        value = apply_affine(value, multiplier, affine, offset % c)
                        multiplier = x86.splat(affine[2][0], "float32", LANES)
                    values.append(value)
                    factors.append(multiplier)
                store_requantized(y, [first + begin // c, begin % c], values, factors, zero_point, count)

    packed = [(WrappedChannels(argument, (argument,), LANES), ((c + LANES,), "int32")) for argument in (3, 4)]
    return build_function(kernel, func, body, packed if kernel.affine else [])


def by_row(values: tirx.Buffer, offset: int, rows: int, c: int) -> Expr:
    """Return what `values` holds for the row of each of LANES elements from `offset` of `rows` rows of C."""
    dtype = str(values.dtype)
    lanes = tirx.Ramp(tirx.const(0, "int32"), 1, LANES)
    first, last = offset // c, min(rows - 1, (offset + LANES - 1) // c)
    result = x86.splat(values[first], dtype, LANES)
    for row in range(first + 1, last + 1):
        is_before = lanes < x86.splat(row * c - offset, "int32", LANES)
        result = tirx.Select(is_before, result, x86.splat(values[row], dtype, LANES))
    return result


def apply_affine(centred: Expr, multiplier: Expr, affine: Sequence[tirx.Buffer], channel: int) -> Expr:
    """Return int32x16 fixed(centred, multiplier) * g + b."""
    g, b, _ = affine
    limit = x86.splat(float(rq.FIXED_LIMIT), "float32", LANES)
    lowest = x86.splat(-float(rq.FIXED_LIMIT), "float32", LANES)
    scaled = tirx.max(centred.astype("float32x16") * multiplier, lowest)
    return x86.round_half_even(tirx.min(scaled, limit)) * load(g, [channel], LANES) + load(b, [channel], LANES)


def row_sums(x: tirx.Buffer, first: Expr, rows: int, c: int) -> tuple[list[Expr], list[Expr]]:
    """Emit, per row, partial sums of x and of (x + 128) * x over C as int32x16; of a wide x, of x * x."""
    if str(x.dtype) == "int16":
        return wide_row_sums(x, first, rows, c)
    ones = x86.splat(1, "int8", x86.ZMM_BYTES)
    flips = x86.splat(-128, "int8", x86.ZMM_BYTES)
    sums, squares = [], []
    for r in range(rows):
        total = square = x86.splat(0, "int32", LANES)
        for channel in range(0, c, x86.ZMM_BYTES):
            q = bind("q", x86.load_bytes(x, [first + r, channel], min(x86.ZMM_BYTES, c - channel)))
            total = x86.dot_unsigned_signed(total, ones, q)
            square = x86.dot_unsigned_signed(square, q ^ flips, q)
        sums.append(bind("sums", total))
        squares.append(bind("squares", square))
    return sums, squares


def wide_row_sums(x: tirx.Buffer, first: Expr, rows: int, c: int) -> tuple[list[Expr], list[Expr]]:
    """Emit, per row, partial sums of int16 x and of x * x over C as int32x16."""
    lanes = 2 * LANES
    ones = x86.splat(1, "int16", lanes)
    sums, squares = [], []
    for r in range(rows):
        total = square = x86.splat(0, "int32", LANES)
        for channel in range(0, c, lanes):
            count = min(lanes, c - channel)
            q = x86.widen(load(x, [first + r, channel], count), count, lanes)
            if count < lanes:
                is_there = tirx.Ramp(tirx.const(0, "int32"), 1, lanes) < x86.splat(count, "int32", lanes)
                q = tirx.Select(is_there, q, x86.splat(0, "int16", lanes))
            q = bind("q", q)
            total = x86.dot_int16(total, ones, q)
            square = x86.dot_int16(square, q, q)
        sums.append(bind("sums", total))
        squares.append(bind("squares", square))
    return sums, squares


def transposed_sum(vectors: list[Expr], lanes: int = LANES, used: int = LANES) -> Expr:
    """Return int32 x lanes whose element i is the sum of the elements of vectors[i]; 0 beyond the last.

    used: elements of each vector from here on are 0.
    """
    vectors = vectors + [x86.splat(0, "int32", lanes)] * (lanes - len(vectors))
    width = lanes
    while len(vectors) > 1:
        half, next_ = width // 2, []
        for low, high in zip(vectors[: len(vectors) // 2], vectors[len(vectors) // 2 :], strict=True):
            order = [start + side + i for start in range(0, lanes, width) for side in (0, lanes) for i in range(half)]
            total = tirx.Shuffle([low, high], [tirx.const(i, "int32") for i in order])
            if used > half:
                total = total + tirx.Shuffle([low, high], [tirx.const(i + half, "int32") for i in order])
            next_.append(bind("partial", total))
        vectors, width = next_, half
    return vectors[0]


def centre(x: tirx.Buffer, position: list[Expr | int], lanes: int, start: Expr, c: int) -> Expr:
    """Return int32x16 C * q + start of `lanes` elements from `position`, which may reach into the next rows."""
    q = x86.widen(load(x, position, lanes), lanes, LANES).astype("int32x16")
    # As pairs of int16 the low halves are q; the high ones, its sign, count zero times.
    return x86.dot_int16(start, q, x86.splat(c, "int32", LANES))
