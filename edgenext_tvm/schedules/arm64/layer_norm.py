"""layer_norm on AArch64: the sums of four rows at a time and their scales in one vector, then the output by rows."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

from tvm import tirx
from tvm.tirx import Expr
from tvm.tirx.script.builder import ir as T

from ...intrinsics import arm_neon as neon
from ...kernels import LayerNorm
from ...kernels.wide import WIDE_QMIN
from ..space import Decisions, Knob, Space
from ..vector_unit import divisors, largest_divisor
from . import epilogue as ep
from .function import Registers, bind, build_function, loop, store_vector

LANES = 4
MAX_CHUNK = 8
MIN_PARALLEL = 8
MAX_UNROLLED = 4
DEFAULT_UNROLLED = 2
MAX_CHANNELS = 32_767
"""C is an int16 factor."""


def layer_norm_space(kernel: LayerNorm, func: tirx.PrimFunc, features: frozenset[str], family: str) -> Space | None:
    """Return the kernel's space, or None for channels that are no multiple of eight.

    rows    rows whose sums and scales are computed together
    chunk   such groups of rows in one iteration of the parallel loop
    unroll  blocks of 16 channels an iteration of the innermost loops
    """
    if kernel.c % 8 or kernel.c > MAX_CHANNELS:
        return None
    rows = (1, LANES) if kernel.t % LANES == 0 else (1,)
    groups = kernel.t // rows[-1]
    blocks = kernel.c // 16
    chunks = tuple(d for d in divisors(kernel.t) if d <= MAX_CHUNK)
    unrolls = tuple(d for d in divisors(max(1, blocks)) if d <= MAX_UNROLLED)
    knobs = (
        Knob("rows", rows, rows[-1]),
        Knob("chunk", chunks, largest_divisor(groups, min(MAX_CHUNK, max(1, groups // MIN_PARALLEL)))),
        Knob("unroll", unrolls, largest_divisor(max(1, blocks), DEFAULT_UNROLLED)),
    )

    def build(d: Decisions) -> tirx.PrimFunc:
        emitter = _LayerNorm(kernel, "dotprod" in features, d["rows"], d["chunk"], d["unroll"])
        return build_function(func, emitter.body)

    return Space(family, build, knobs, lambda d: kernel.t // d["rows"] % d["chunk"] == 0)


class _LayerNorm:
    def __init__(self, kernel: LayerNorm, dotprod: bool, rows: int, chunk: int, unroll: int) -> None:
        self.kernel, self.c, self.dotprod = kernel, kernel.c, dotprod
        self.is_wide = kernel.x_dtype == "int16"
        self.rows, self.chunk, self.unroll = rows, chunk, unroll

    def body(self, **b: tirx.Buffer) -> None:
        groups = self.kernel.t // self.rows
        with loop(groups // self.chunk, "chunk", parallel=True) as outer, loop(self.chunk, "group") as inner:
            self._group((outer * self.chunk + inner) * self.rows, **b)

    def _group(
        self, first: Expr, x: tirx.Buffer, ln: tirx.Buffer, qp: tirx.Buffer, y: tirx.Buffer, **affine: tirx.Buffer
    ) -> None:
        sums, squares = (Registers(name, self.rows, "int32x4") for name in ("sums", "squares"))
        zero = neon.splat(tirx.const(0, "int32"), 4)
        for r in range(self.rows):
            sums.set(r, zero)
            squares.set(r, zero)

        def add(at: Expr, lanes: int) -> None:
            for r in range(self.rows):
                for row in self._whole_registers(x, [first + r, at], lanes):
                    sums.set(r, self._add_values(sums.get(r), row))
                    squares.set(r, self._add_squares(squares.get(r), row))

        self._blocks(add)
        total, total_squares = (bind(self._across(registers), "total") for registers in (sums, squares))
        variance = self._variance(total, total_squares)
        root = tirx.sqrt(variance.astype("float32x4") + neon.splat(ln[0], 4))
        starts, scales = Registers("starts", 1, "int32x4"), Registers("scales", 1, "float32x4")
        starts.set(0, total)
        scales.set(0, neon.splat(ln[1], 4) / root)
        zero_point = ep.zero_point_vector(qp[0])
        factor = neon.splat(tirx.const(self.c, "int16"), 4)
        with T.serial(self.rows) if self.rows > 1 else nullcontext(0) as r:
            start = bind(neon.splat(starts.buffer[r], 4), "start")
            scale = bind(neon.splat(scales.buffer[r], 4), "scale")

            def write(at: Expr, lanes: int) -> None:
                quads = ep.widen(bind(x.vload([first + r, at], f"{x.dtype}x{lanes}"), "x"))
                centred = [neon.smull(quad, factor) - start for quad in quads]
                if affine:
                    values = [self._affine(value, scale, at + 4 * q, **affine) for q, value in enumerate(centred)]
                else:
                    values = [bind(ep.scaled(value, scale), "f") for value in centred]
                store_vector(y, [first + r, at], ep.requantized(values, zero_point, str(y.dtype)), lanes)

            self._blocks(write)

    def _affine(
        self, centred: Expr, scale: Expr, channel: Expr, g: tirx.Buffer, b: tirx.Buffer, rs: tirx.Buffer
    ) -> tirx.Var:
        """float32x4: the normalised value in fixed point times gamma plus beta, before its last rounding."""
        gamma, beta = (buffer.vload([channel], "int32x4") for buffer in (g, b))
        value = ep.fixed(centred, scale) * gamma + beta
        return bind(ep.scaled(value, neon.splat(rs[0], 4)), "f")

    def _blocks(self, emit: Callable[[Expr, int], None]) -> None:
        """Emit `emit` for all channels, 16 at a time and the last 8."""
        blocks = self.c // 16
        if blocks:
            with loop(blocks // self.unroll, "block") as block:
                for u in range(self.unroll):
                    emit((block * self.unroll + u) * 16, 16)
        if self.c % 16:
            emit(tirx.IntImm("int32", blocks * 16), 8)

    def _splat(self, value: int) -> Expr:
        return neon.splat(tirx.const(value, "int32"), 4)

    def _whole_registers(self, x: tirx.Buffer, indices: list[Expr], lanes: int) -> list[Expr]:
        """The `lanes` values of x from `indices`, eight of int8 filled up with zeros."""
        row = x.vload(indices, f"{x.dtype}x{lanes}")
        if self.is_wide:
            row = bind(row, "x")
            return [row] if lanes == 8 else [neon.low(row, 8), neon.high(row, 8)]
        return [bind(neon.concat(row, neon.splat(tirx.const(0, "int8"), 8)) if lanes == 8 else row, "x")]

    def _add_values(self, acc: Expr, x: Expr) -> Expr:
        if self.is_wide:
            return neon.sadalp(acc, x)
        if self.dotprod:
            return neon.sdot(acc, x, neon.splat(tirx.const(1, "int8"), 16))
        return neon.sadalp(acc, neon.pairs(x))

    def _add_squares(self, acc: Expr, x: Expr) -> Expr:
        if self.is_wide:
            for half in (neon.low(x, 4), neon.high(x, 4)):
                acc = acc + neon.smull(half, half)
            return acc
        if self.dotprod:
            return neon.sdot(acc, x, x)
        for half in (neon.low(x, 8), neon.high(x, 8)):
            acc = neon.sadalp(acc, neon.smull(half, half))
        return acc

    def _variance(self, total: Expr, squares: Expr) -> Expr:
        """LayerNorm.variance_expr of int32x4 sums."""
        if self.is_wide:
            shifted = (total + -WIDE_QMIN * self.c) * 2 + self.c
            mean = bind(tirx.truncdiv(shifted, self._splat(2 * self.c)) + WIDE_QMIN, "mean")
            rest = bind(total - mean * self.c, "rest")
            return squares - mean * (total + rest) - tirx.truncdiv(rest * rest, self._splat(self.c))
        mean = bind(tirx.truncdiv((total + 128 * self.c) * 2 + self.c, self._splat(2 * self.c)) - 128, "mean")
        rest = bind(total - mean * self.c, "rest")
        deviation = squares - mean * total * 2 + mean * mean * self.c
        return deviation * 16 - tirx.truncdiv(rest * rest * 16, self._splat(self.c))

    def _across(self, registers: Registers) -> Expr:
        """The sum over each register's lanes, one lane a row."""
        parts = [registers.get(r % self.rows) for r in range(LANES)]
        return neon.addp(neon.addp(parts[0], parts[1]), neon.addp(parts[2], parts[3]))
