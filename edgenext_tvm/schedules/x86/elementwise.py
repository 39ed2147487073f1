"""Table look-ups and additions with AVX-512, row by row, up to 64 channels at a time."""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from ...intrinsics import x86
from ...kernels import Add, Lut
from ..space import Decisions, Knob, Space
from ..vector_unit import divisors
from .emit import LANES, Expr, bind, build_function, load
from .epilogue import Table, store_bytes, store_requantized

MAX_ROWS_PER_CHUNK = 32
MIN_PARALLEL = 8


def elementwise_space(kernel: Add | Lut, func: tirx.PrimFunc) -> Space:
    """Return the space of a look-up or an addition: how many rows one parallel iteration takes."""
    rows = tuple(d for d in divisors(kernel.t) if d <= max(1, min(MAX_ROWS_PER_CHUNK, kernel.t // MIN_PARALLEL)))
    knob = Knob("rows", rows, rows[-1])

    def build(d: Decisions) -> tirx.PrimFunc:
        if isinstance(kernel, Add):
            return build_add(kernel, func, d["rows"])
        return build_lut(kernel, func, d["rows"])

    return Space(f"x86_vnni.{kernel.kind}", build, (knob,))


def over_rows(t: int, c: int, rows: int, emit: Callable[[Expr, int, int], None]) -> None:
    """Emit emit(row, first channel, how many) over T rows of C channels, chunks of `rows` in parallel."""
    with T.parallel(t // rows) as chunk, T.serial(rows) as row:
        token = bind("row", chunk * rows + row)
        whole = c // x86.ZMM_BYTES
        for channel in range(0, whole * x86.ZMM_BYTES, x86.ZMM_BYTES):
            emit(token, channel, x86.ZMM_BYTES)
        if rest := c % x86.ZMM_BYTES:
            emit(token, c - rest, rest)


def build_lut(kernel: Lut, func: tirx.PrimFunc, rows: int) -> tirx.PrimFunc:
    """Return `func` for AVX-512 VBMI: 64 look-ups by two vpermi2b."""

    def body(*buffers: tirx.Buffer) -> None:
        x, lut, *_, y = buffers
        table = Table(lut)

        def emit(row: Expr, channel: int, count: int) -> None:
            q = bind("q", x86.load_bytes(x, [row, channel + kernel.x_offset], count))
            store_bytes(y, [row, channel + kernel.y_offset], table(q), count)

        over_rows(kernel.t, kernel.c, rows, emit)

    return build_function(kernel, func, body)


def build_add(kernel: Add, func: tirx.PrimFunc, rows: int) -> tirx.PrimFunc:
    """Return `func` for AVX-512."""

    def body(a: tirx.Buffer, b: tirx.Buffer, ap: tirx.Buffer, rs: tirx.Buffer, y: tirx.Buffer) -> None:
        parameters = [bind("parameter", ap[i]) for i in range(5)]
        zero_a, scale_a, zero_b, scale_b, zero_out = parameters
        multiplier = bind("rs", rs[0])

        def scaled(x: tirx.Buffer, position: list[Expr | int], lanes: int, zero: Expr, scale: Expr) -> Expr:
            q = x86.widen(load(x, position, lanes), lanes, LANES).astype("int32x16")
            return (q - x86.splat(zero, "int32", LANES)) * x86.splat(scale, "int32", LANES)

        def emit(row: Expr, channel: int, count: int) -> None:
            sums = []
            for first in range(0, count, LANES):
                lanes, c = min(LANES, count - first), channel + first
                left = scaled(a, [row, c + kernel.a_offset], lanes, zero_a, scale_a)
                sums.append(left + scaled(b, [row, c + kernel.b_offset], lanes, zero_b, scale_b))
            multipliers = [x86.splat(multiplier, "float32", LANES)] * len(sums)
            store_requantized(y, [row, channel], sums, multipliers, zero_out, count)

        over_rows(kernel.t, kernel.c, rows, emit)

    return build_function(kernel, func, body)
