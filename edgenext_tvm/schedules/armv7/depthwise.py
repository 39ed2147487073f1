"""depthwise on Armv7 NEON: eight channels of a run of output pixels in registers; taps on padding are left out.

Inputs are widened to int16 as x - zp_in, so padding is zero and need not be computed; the bias makes up for it. A tap's
weights serve all pixels of the run before the next tap's are read, and inputs slide along the run.
"""

from __future__ import annotations

from functools import partial

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx import Expr
from tvm.tirx.script.builder import ir as T

from ...intrinsics import armv7_neon as neon
from ...intrinsics.arm_neon import splat
from ...kernels import Depthwise
from ..arm64.function import Registers, bind, build_function, loop
from ..arm64.packing import CentredBias, WidenedTaps
from ..space import Decisions, Knob, Space
from ..vector_unit import divisors
from .matmul import emit_outputs

CHANNELS = 8
MAX_PIXELS = 6
"""Output pixels of a run: two of 16 registers of sums each."""
BEST_PIXELS = 4
MAX_TAPS = 360
"""Multiply-adds of one kernel row that are unrolled, over all runs that have code of their own: it bounds code size."""


def depthwise_space(kernel: Depthwise, func: tirx.PrimFunc) -> Space | None:
    """Return the kernel's space; None for few channels, a table, or a residual in another layout than y."""
    if kernel.c < CHANNELS or kernel.epilogue == "lut":
        return None
    # Channels of the last block that overlap the one before are written twice, which a residual shared with y forbids.
    if kernel.epilogue == "residual" and (kernel.c % CHANNELS or kernel.y_channels != kernel.c):
        return None
    widths = [pixels for pixels in divisors(kernel.out_hw[1]) if pixels <= MAX_PIXELS]
    runs = [p for p in widths if p * kernel.kw * len(column_runs(kernel, p)) <= MAX_TAPS]
    if not runs:
        return None

    def build(decisions: Decisions) -> tirx.PrimFunc:
        shape = (kernel.kh, kernel.kw, kernel.c)
        packings = [WidenedTaps(1, (1,)), CentredBias(2, (2, 1, 4))]
        body = _Depthwise(kernel, decisions["pixels"]).body
        return build_function(func, body, packings, {1: shape}, {1: "int16"})

    best = max((pixels for pixels in runs if pixels <= BEST_PIXELS), default=runs[0])
    return Space("armv7_neon.depthwise", build, (Knob("pixels", tuple(runs), best),))


def column_runs(kernel: Depthwise, pixels: int) -> list[tuple[int, int, int | None]]:
    """(first column, runs, column whose window decides what is padding, None if nothing is) of a line, in order."""
    found: list[tuple[int, int, int | None]] = []
    for at in range(0, kernel.out_hw[1], pixels):
        left = at * kernel.stride_w - kernel.pad_left
        right = left + (pixels - 1) * kernel.stride_w + kernel.kw
        touches = left < 0 or right > kernel.w
        if not touches and found and found[-1][2] is None:
            found[-1] = (found[-1][0], found[-1][1] + 1, None)
        else:
            found.append((at, 1, at if touches else None))
    return found


class _Depthwise:
    def __init__(self, kernel: Depthwise, pixels: int) -> None:
        self.kernel, self.pixels = kernel, pixels
        self.oh = kernel.out_hw[0]

    def body(self, **b: tirx.Buffer) -> None:
        kernel = self.kernel
        blocks = -(-kernel.c // CHANNELS)
        with loop(kernel.n * self.oh, "line", parallel=True) as line:
            n, i = tirx.floordiv(line, self.oh), tirx.floormod(line, self.oh)
            top = bind(i * kernel.stride_h - kernel.pad_top, "top")
            first = bind(tirx.max(0 - top, 0), "first")
            last = bind(tirx.min(tirx.IntImm("int32", kernel.kh), kernel.h - top), "last")
            zero_point = bind(splat(b["qp"][0].astype("int8"), CHANNELS), "zp_in")
            with loop(blocks, "block") as block:
                channel = bind(tirx.min(block * CHANNELS, kernel.c - CHANNELS), "channel")
                for start, count, edge in column_runs(kernel, self.pixels):
                    with loop(count, "run") as run:
                        column = start + run * self.pixels
                        sums = self._sums(b, n, top, (first, last), zero_point, channel, column, edge)
                        emit_outputs(kernel.epilogue, b, sums, channel, partial(self._place, n, i, column), biased=True)

    def _place(self, n: Expr, i: Expr, column: Expr, pixel: int, channel: Expr) -> list[Expr]:
        return [n, i, column + pixel, channel + self.kernel.y_offset]

    def _sums(
        self,
        b: dict[str, tirx.Buffer],
        n: Expr,
        top: Expr,
        rows: tuple[Expr, Expr],
        zero_point: Expr,
        channel: Expr,
        column: Expr,
        edge: int | None,
    ) -> list[list[Expr]]:
        """Emit the products of one run; int32x4 sums by pixel and quad of channels."""
        kernel = self.kernel
        sums = Registers("sums", 2 * self.pixels, "int32x4")
        bias = [bind(b["bias"].vload([channel + 4 * q], "int32x4"), "bias") for q in range(2)]
        for index in range(sums.count):
            sums.set(index, bias[index % 2])
        with T.serial(rows[0], rows[1]) as tap_row:
            IRBuilder.name("tap_row", tap_row)
            inputs: dict[int, tirx.Var] = {}
            for tap in range(kernel.kw):
                columns = [p * kernel.stride_w + tap for p in range(self.pixels)]
                inside = [(p, j) for p, j in enumerate(columns) if edge is None or self._inside(edge, j)]
                if not inside:
                    continue
                weights = bind(b["w"].vload([tap_row, tap, channel], "int16x8"), "w")
                for p, j in inside:
                    if j not in inputs:
                        at = column * kernel.stride_w + (j - kernel.pad_left)
                        pixel = b["x"].vload([n, top + tap_row, at, channel + kernel.x_offset], f"int8x{CHANNELS}")
                        inputs[j] = bind(pixel.astype("int16x8") - zero_point.astype("int16x8"), "x")
                    for q, part in enumerate((neon.low, neon.high)):
                        product = neon.vmull(part(inputs[j], 4), part(weights, 4))
                        sums.set(2 * p + q, sums.get(2 * p + q) + product)
        return [[bind(sums.get(2 * p + q), "acc") for q in range(2)] for p in range(self.pixels)]

    def _inside(self, edge: int, j: int) -> bool:
        return 0 <= edge * self.kernel.stride_w - self.kernel.pad_left + j < self.kernel.w
