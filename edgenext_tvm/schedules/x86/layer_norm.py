"""LayerNorm with AVX-512: up to 16 rows at once, so that one vector holds every row's sum, variance and multiplier."""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from ...intrinsics import x86
from ...kernels import LayerNorm
from ...kernels import requantize as rq
from ...kernels.packing import PaddedChannels, round_up
from ..space import Knob, Space
from ..vector_unit import divisors
from .emit import LANES, Expr, Register, bind, build_function, load
from .epilogue import MAX_VECTORS, requantize, store_bytes


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
            total = bind("total", transposed_sum(sums))
            # x + 128 times x, summed, is the sum of squares plus 128 times the sum.
            square = bind("square", transposed_sum(squares) - (total << x86.splat(7, "int32", LANES)))
            variance = kernel.variance_expr(total, square).astype("float32x16") + x86.splat(ln[0], "float32", LANES)
            scale, negative = Register("scale", "float32"), Register("negative")
            scale.set(x86.splat(ln[1], "float32", LANES) / tirx.sqrt(variance))
            negative.set(x86.splat(0, "int32", LANES) - total)
            for r in range(rows):
                start = bind("start", x86.splat(negative.buffer[r], "int32", LANES))
                multiplier = bind("multiplier", x86.splat(scale.buffer[r], "float32", LANES))
                for channel in range(0, c, MAX_VECTORS * LANES):
                    count = min(MAX_VECTORS * LANES, c - channel)
                    values = [
                        centre(x, first + r, channel + v, min(LANES, count - v), start, c)
                        for v in range(0, count, LANES)
                    ]
                    factors = [multiplier] * len(values)
                    if affine:
                        starts = range(channel, channel + count, LANES)
                        pairs = zip(values, starts, strict=True)
                        values = [apply_affine(value, multiplier, affine, begin) for value, begin in pairs]
                        factors = [x86.splat(affine[2][0], "float32", LANES)] * len(values)
                    out = requantize(values, factors, zero_point)
                    store_bytes(y, [first + r, channel], out, count)

    padded = (round_up(c, LANES),)
    packed = [(PaddedChannels(argument, (argument,), LANES), (padded, "int32")) for argument in (3, 4)]
    return build_function(kernel, func, body, packed if kernel.affine else [])


def apply_affine(centred: Expr, multiplier: Expr, affine: Sequence[tirx.Buffer], channel: int) -> Expr:
    """Return int32x16 fixed(centred, multiplier) * g + b."""
    g, b, _ = affine
    limit = x86.splat(float(rq.FIXED_LIMIT), "float32", LANES)
    lowest = x86.splat(-float(rq.FIXED_LIMIT), "float32", LANES)
    scaled = tirx.max(centred.astype("float32x16") * multiplier, lowest)
    return x86.round_half_even(tirx.min(scaled, limit)) * load(g, [channel], LANES) + load(b, [channel], LANES)


def row_sums(x: tirx.Buffer, first: Expr, rows: int, c: int) -> tuple[list[Expr], list[Expr]]:
    """Emit, per row, partial sums of x and of (x + 128) * x over C as int32x16."""
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


def transposed_sum(vectors: list[Expr], lanes: int = LANES) -> Expr:
    """Return int32 x lanes whose element i is the sum of the elements of vectors[i]; 0 beyond the last."""
    vectors = vectors + [x86.splat(0, "int32", lanes)] * (lanes - len(vectors))
    width = lanes
    while len(vectors) > 1:
        half, next_ = width // 2, []
        for low, high in zip(vectors[: len(vectors) // 2], vectors[len(vectors) // 2 :], strict=True):
            order = [start + side + i for start in range(0, lanes, width) for side in (0, lanes) for i in range(half)]
            left = tirx.Shuffle([low, high], [tirx.const(i, "int32") for i in order])
            right = tirx.Shuffle([low, high], [tirx.const(i + half, "int32") for i in order])
            next_.append(bind("partial", left + right))
        vectors, width = next_, half
    return vectors[0]


def centre(x: tirx.Buffer, row: Expr, channel: int, lanes: int, start: Expr, c: int) -> Expr:
    """Return int32x16 C * q + start of `lanes` channels."""
    q = x86.widen(load(x, [row, channel], lanes), lanes, LANES).astype("int32x16")
    # As pairs of int16 the low halves are q; the high ones, its sign, count zero times.
    return x86.dot_int16(start, q, x86.splat(c, "int32", LANES))
