"""LayerNorm with AVX2: up to eight rows at once, so that one vector holds every row's sum, variance and multiplier."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from ...intrinsics import x86_avx2 as avx2
from ...kernels import LayerNorm
from ...kernels.packing import PaddedChannels, round_up
from ..vector_unit import largest_divisor
from ..x86.emit import Expr, Register, bind, build_function, load, store
from ..x86.layer_norm import transposed_sum
from .epilogue import LANES, MAX_VECTORS, constant, fixed, load_bytes, requantize, slice_bytes

PAIRS = 2 * LANES
"""int16 elements of a vector."""
MAX_UNROLLED = 4
MIN_PARALLEL = 8


def build_layer_norm(kernel: LayerNorm, func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Return `func` for AVX2: sums, sums of squares and C * q - S by vpmaddwd."""
    rows, c = largest_divisor(kernel.t, LANES), kernel.c
    groups = kernel.t // rows
    chunk = largest_divisor(groups, max(1, groups // MIN_PARALLEL))

    def body(*buffers: tirx.Buffer) -> None:
        x, ln, qp, *affine, y = buffers
        zero_point = bind("zp_out", qp[0])
        with T.parallel(groups // chunk) as outer, T.serial(chunk) as inner:
            first = bind("row", (outer * chunk + inner) * rows)
            pairs = [row_sums(x, first + r, c) for r in range(rows)]
            total = bind("total", transposed_sum([s.get() for s, _ in pairs], LANES))
            square = bind("square", transposed_sum([s.get() for _, s in pairs], LANES))
            variance = kernel.variance_expr(total, square).astype("float32x8") + avx2.splat(ln[0], "float32", LANES)
            scale, negative = Register("scale", "float32", LANES), Register("negative", lanes=LANES)
            scale.set(avx2.splat(ln[1], "float32", LANES) / tirx.sqrt(variance))
            negative.set(constant(0) - total)
            with T.serial(rows) as r:
                start = bind("start", avx2.splat(negative.buffer[r], "int32", LANES))
                multiplier = bind("multiplier", avx2.splat(scale.buffer[r], "float32", LANES))

                def write(channel: Expr | int, count: int) -> None:
                    sizes = [min(LANES, count - at) for at in range(0, count, LANES)]
                    channels = [channel + LANES * number for number in range(len(sizes))]
                    places = list(zip(channels, sizes, strict=True))
                    values = [centre(x, [first + r, at], lanes, start, c) for at, lanes in places]
                    factors = [multiplier] * len(values)
                    if affine:
                        g, b, rs = affine
                        scaled = [fixed(value, multiplier) for value in values]
                        gained = zip(scaled, channels, strict=True)
                        values = [value * load(g, [at], LANES) + load(b, [at], LANES) for value, at in gained]
                        factors = [avx2.splat(rs[0], "float32", LANES)] * len(values)
                    out = requantize(values, factors, zero_point)
                    store(y, [first + r, channel], slice_bytes(out, 0, count), count)

                over_blocks(c, MAX_VECTORS * LANES, write)

    padded = (round_up(c, LANES),)
    packed = [(PaddedChannels(argument, (argument,), LANES), (padded, "int32")) for argument in (3, 4)]
    return build_function(kernel, func, body, packed if kernel.affine else [])


def over_blocks(size: int, block: int, emit: Callable[[Expr | int, int], None]) -> None:
    """Emit emit(first, how many) over `size` elements, whole blocks and the rest; many blocks in a loop."""
    whole, rest = divmod(size, block)
    if whole <= MAX_UNROLLED:
        for number in range(whole):
            emit(number * block, block)
    else:
        with T.serial(whole) as number:
            emit(number * block, block)
    if rest:
        emit(whole * block, rest)


def row_sums(x: tirx.Buffer, row: Expr, c: int) -> tuple[Register, Register]:
    """Emit partial sums of x and of x^2 over C of one row, int32x8 each."""
    total, square = Register("sums", lanes=LANES), Register("squares", lanes=LANES)
    for register in (total, square):
        register.set(constant(0))

    def add(channel: Expr | int, count: int) -> None:
        q = bind("q", load_bytes(x, [row, channel], count, PAIRS).astype("int16x16"))
        total.set(avx2.dot_int16(total.get(), q, avx2.splat(1, "int16", PAIRS)))
        square.set(avx2.dot_int16(square.get(), q, q))

    over_blocks(c, PAIRS, add)
    return total, square


def centre(x: tirx.Buffer, indices: Sequence[Expr | int], lanes: int, start: Expr, c: int) -> Expr:
    """Return int32x8 C * q + start of `lanes` channels."""
    q = avx2.widen(load(x, indices, lanes), lanes, LANES).astype("int32x8")
    # As pairs of int16 the low halves are q; the high ones, its sign, count zero times.
    return avx2.dot_int16(start, q, constant(c))
