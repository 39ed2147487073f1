"""layer_norm on Armv7 NEON: both sums of a row in one pass, its scale as scalars, then the output."""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx
from tvm.tirx import Expr

from ...intrinsics import armv7_neon as neon
from ...intrinsics.arm_neon import splat
from ...kernels import LayerNorm
from ..arm64.function import Registers, bind, build_function, loop, store_vector
from ..space import Decisions, Knob, Space
from ..vector_unit import divisors, largest_divisor
from . import epilogue as ep

UNROLLS = (1, 2, 3, 4)
DEFAULT_UNROLL = 3
MIN_PARALLEL = 8
MAX_CHUNK = 32


def layer_norm_space(kernel: LayerNorm, func: tirx.PrimFunc) -> Space | None:
    """Return the kernel's space; None for channels that are no multiple of eight."""
    if kernel.c % 8:
        return None
    unrolls = tuple(u for u in UNROLLS if u in divisors(max(kernel.c // 16, 1)))

    def build(decisions: Decisions) -> tirx.PrimFunc:
        return build_function(func, _LayerNorm(kernel, decisions["unroll"]).body)

    best = max(u for u in unrolls if u <= DEFAULT_UNROLL)
    return Space("armv7_neon.layer_norm", build, (Knob("unroll", unrolls, best),))


class _LayerNorm:
    def __init__(self, kernel: LayerNorm, unroll: int) -> None:
        self.kernel, self.c, self.unroll = kernel, kernel.c, unroll

    def body(self, **b: tirx.Buffer) -> None:
        t = self.kernel.t
        chunk = largest_divisor(t, min(MAX_CHUNK, max(1, t // MIN_PARALLEL)))
        with loop(t // chunk, "chunk", parallel=True) as outer, loop(chunk, "row") as inner:
            self._row(outer * chunk + inner, **b)

    def _row(
        self, row: Expr, x: tirx.Buffer, ln: tirx.Buffer, qp: tirx.Buffer, y: tirx.Buffer, **affine: tirx.Buffer
    ) -> None:
        total, total_squares = self._totals(x, row)
        variance = self.kernel.variance_expr(total, total_squares)
        scale = bind(ln[1] / tirx.sqrt(variance.astype("float32") + ln[0]), "scale")
        scales = bind(splat(scale, 4), "scales")
        start = bind(splat(total, 4), "start")
        factor = bind(splat(tirx.const(self.c, "int16"), 4), "factor")
        requantize = ep.Requantize.to(qp[0])

        def write(at: Expr | int, lanes: int) -> None:
            inputs = bind(x.vload([row, at], f"int8x{lanes}"), "x")
            for i, part in enumerate((neon.low, neon.high)[: lanes // 8]):
                wide = bind((inputs if lanes == 8 else part(inputs, 8)).astype("int16x8"), "wide")
                values = []
                for q, half in enumerate((neon.low(wide, 4), neon.high(wide, 4))):
                    value = ep.scaled(neon.vmull(half, factor) - start, scales)
                    values.append(self._affine(value, at + 8 * i + 4 * q, **affine) if affine else value)
                store_vector(y, [row, at + 8 * i], requantize.eight(*values), 8)

        self._blocks(write)

    def _affine(self, value: Expr, channel: Expr | int, g: tirx.Buffer, b: tirx.Buffer, rs: tirx.Buffer) -> Expr:
        """float32x4: the normalised value in fixed point times gamma plus beta, before its last rounding."""
        gamma, beta = (buffer.vload([channel], "int32x4") for buffer in (g, b))
        return ep.scaled(ep.fixed_from_float(value) * gamma + beta, splat(rs[0], 4))

    def _totals(self, x: tirx.Buffer, row: Expr) -> tuple[tirx.Var, tirx.Var]:
        """int32 sums of the row's values and of their squares."""
        # 128 steps of two values down to -128 are the most that int16 holds: MAX_CHANNELS of the kernel
        sums, squares = Registers("sums", 1, "int16x8"), Registers("squares", 1, "int32x4")
        sums.set(0, splat(tirx.const(0, "int16"), 8))
        squares.set(0, splat(tirx.const(0, "int32"), 4))

        def add(at: Expr | int, lanes: int) -> None:
            values = bind(x.vload([row, at], f"int8x{lanes}"), "x")
            if lanes == 8:
                halves = [values]
                sums.set(0, sums.get(0) + values.astype("int16x8"))
            else:
                halves = [neon.low(values, 8), neon.high(values, 8)]
                sums.set(0, neon.vpadal(sums.get(0), values))
            for half in halves:
                squares.set(0, neon.vpadal(squares.get(0), neon.vmull(half, half)))

        self._blocks(add)
        pairs = [neon.low(v, 2) + neon.high(v, 2) for v in (neon.vpaddl(sums.get(0)), squares.get(0))]
        totals = Registers("totals", 1, "int32x2")
        totals.set(0, neon.add_pairs(*pairs))
        return bind(totals.buffer[0], "total"), bind(totals.buffer[1], "total_squares")

    def _blocks(self, emit: Callable[[Expr | int, int], None]) -> None:
        """Emit `emit` for all channels, 16 at a time and the last 8."""
        blocks = self.c // 16
        if blocks:
            with loop(blocks // self.unroll, "block") as block:
                for u in range(self.unroll):
                    emit((block * self.unroll + u) * 16, 16)
        if self.c % 16:
            emit(blocks * 16, 8)
