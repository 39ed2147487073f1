"""depthwise on AArch64: eight channels of a run of output pixels in registers; taps on padding are left out.

Inputs become int16 x - zp_in (wide ones are int16), so padding is zero and need not be computed; the bias makes up
for it.
"""

from __future__ import annotations

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx import Expr
from tvm.tirx.script.builder import ir as T

from ...intrinsics import arm_neon as neon
from ...kernels import Depthwise
from ..space import Decisions, Knob, Space
from ..vector_unit import divisors
from . import epilogue as ep
from .function import Registers, bind, build_function, loop
from .packing import CentredBias, WidenedTaps
from .product_emitter import emit_epilogue

CHANNELS = 8
MAX_PIXELS = 8
"""Output pixels of a tile: two registers of sums each."""
MAX_TAPS = 144
"""Multiply-adds of one kernel row and tile that are unrolled: it bounds code size."""
MAX_LINES = 8


def depthwise_space(kernel: Depthwise, func: tirx.PrimFunc, _: frozenset[str], family: str) -> Space | None:
    """Return the kernel's space, or None for few channels, a table, or a residual in another layout than y.

    pixels  output pixels of a line that are one tile
    lines   output lines of one iteration of the parallel loop
    """
    if kernel.c < CHANNELS or kernel.epilogue == "lut":
        return None
    # Channels of the last block that overlap the one before are written twice, which a residual shared with y forbids.
    if kernel.epilogue == "residual" and (kernel.c % CHANNELS or kernel.y_channels != kernel.c):
        return None
    oh, ow = kernel.out_hw
    # Of the pixels left of the first window at most a tile's may be padding.
    pixels = [
        p
        for p in divisors(ow)
        if p <= MAX_PIXELS and p * kernel.kw <= MAX_TAPS and kernel.pad_left <= p * kernel.stride_w
    ]
    if not pixels:
        return None
    lines = tuple(d for d in divisors(kernel.n * oh) if d <= MAX_LINES)

    def build(d: Decisions) -> tirx.PrimFunc:
        shape = (kernel.kh, kernel.kw, kernel.c)
        packings = [WidenedTaps(1, (1,)), CentredBias(2, (2, 1, 4))]
        return build_function(
            func, _Depthwise(kernel, d["pixels"], d["lines"]).body, packings, {1: shape}, {1: "int16"}
        )

    return Space(family, build, (Knob("pixels", tuple(pixels), pixels[-1]), Knob("lines", lines, 1)))


class _Depthwise:
    def __init__(self, kernel: Depthwise, pixels: int, lines: int) -> None:
        self.kernel, self.pixels, self.lines = kernel, pixels, lines
        self.oh, self.ow = kernel.out_hw

    def body(self, **b: tirx.Buffer) -> None:
        kernel = self.kernel
        blocks = -(-kernel.c // CHANNELS)
        with loop(kernel.n * self.oh // self.lines, "chunk", parallel=True) as chunk, loop(self.lines, "line") as at:
            line = chunk * self.lines + at
            n, i = tirx.floordiv(line, self.oh), tirx.floormod(line, self.oh)
            top = bind(i * kernel.stride_h - kernel.pad_top, "top")
            first = bind(tirx.max(0 - top, 0), "first")
            last = bind(tirx.min(tirx.IntImm("int32", kernel.kh), kernel.h - top), "last")
            zero_point = bind(neon.splat(b["qp"][0].astype(kernel.x_dtype), CHANNELS), "zp_in")
            with loop(blocks, "block") as block:
                channel = bind(tirx.min(block * CHANNELS, kernel.c - CHANNELS), "channel")
                for start, count, clean in self._column_tiles():
                    with loop(count, "tile") as tile:
                        column = start + tile * self.pixels
                        self._tile(b, n, i, top, (first, last), zero_point, channel, column, clean)

    def _column_tiles(self) -> list[tuple[int, int, int | None]]:
        """(first column, tiles, column whose window decides what is padding, None if nothing is)."""
        kernel, tiles = self.kernel, self.ow // self.pixels
        touched = []
        for tile in range(tiles):
            left = tile * self.pixels * kernel.stride_w - kernel.pad_left
            right = left + (self.pixels - 1) * kernel.stride_w + kernel.kw
            touched.append(left < 0 or right > kernel.w)
        found: list[tuple[int, int, int | None]] = []
        for tile, touches in enumerate(touched):
            if not touches and found and found[-1][2] is None:
                found[-1] = (found[-1][0], found[-1][1] + 1, None)
            else:
                found.append((tile * self.pixels, 1, tile * self.pixels if touches else None))
        return found

    def _tile(
        self,
        b: dict[str, tirx.Buffer],
        n: Expr,
        i: Expr,
        top: Expr,
        rows: tuple[Expr, Expr],
        zero_point: Expr,
        channel: Expr,
        column: Expr,
        edge: int | None,
    ) -> None:
        kernel = self.kernel
        sums = Registers("sums", 2 * self.pixels, "int32x4")
        bias = [bind(b["bias"].vload([channel + 4 * q], "int32x4"), "bias") for q in range(2)]
        for p in range(self.pixels):
            for q in range(2):
                sums.set(2 * p + q, bias[q])
        with T.serial(rows[0], rows[1]) as tap_row:
            IRBuilder.name("tap_row", tap_row)
            taps = [bind(b["w"].vload([tap_row, tap, channel], "int16x8"), "w") for tap in range(kernel.kw)]
            for j in range((self.pixels - 1) * kernel.stride_w + kernel.kw):
                if edge is not None and not 0 <= edge * kernel.stride_w - kernel.pad_left + j < kernel.w:
                    continue
                users = [(p, j - p * kernel.stride_w) for p in range(self.pixels)]
                users = [(p, tap) for p, tap in users if 0 <= tap < kernel.kw]
                if not users:
                    continue
                where = [n, top + tap_row, column * kernel.stride_w + (j - kernel.pad_left), channel + kernel.x_offset]
                pixel = b["x"].vload(where, f"{kernel.x_dtype}x{CHANNELS}")
                x = bind(pixel.astype("int16x8") - zero_point.astype("int16x8"), "x")
                for p, tap in users:
                    for q, part in enumerate((neon.low, neon.high)):
                        product = neon.smull(part(x, 4), part(taps[tap], 4))
                        sums.set(2 * p + q, sums.get(2 * p + q) + product)
        mult = [bind(b["mult"].vload([channel + 4 * q], "float32x4"), "mult") for q in range(2)]
        totals = [bind(sums.get(index), "acc") for index in range(sums.count)]
        runs = [ep.Run((n, i, column + p, channel + kernel.y_offset), 2) for p in range(self.pixels)]
        emit_epilogue(kernel.epilogue, b, totals, mult * self.pixels, runs)
