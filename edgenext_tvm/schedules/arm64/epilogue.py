"""What follows int32 sums, four channels a register: the same bits as kernels.epilogue in fewer instructions.

Rounding to nearest even with saturation (fcvtns) and the saturating narrowing of value + zero point (sqxtn, sqadd,
sqxtn) give what the clamp to [-128 - zp, 127 - zp] before the rounding gives: both bounds are integers, and a value
saturated to int16 stays beyond them after a zero point of at most 128 is added. The same holds for the range of a wide
tensor and its zero points of at most 2048, where a minimum and a maximum of int16 stand in for the last narrowing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx import Expr
from tvm.tirx.script.builder import ir as T

from ...intrinsics import arm_neon as neon
from ...kernels.requantize import FIXED_LIMIT
from ...kernels.wide import QRANGE
from ..vector_unit import largest_divisor
from .function import bind, loop, store_vector

MAX_UNROLLED = 4
QUADS = 4
"""Registers of four int32 that one register of int8 holds."""


@dataclass(frozen=True)
class Run:
    """`quads` neighbouring registers of four channels, stored together: indices of the first channel in y."""

    indices: tuple[Expr | int, ...]
    quads: int


def split_runs(indices: tuple[Expr | int, ...], quads: int) -> list[Run]:
    """Runs of 4, 2 and 1 quads that cover `quads` quads from `indices`."""
    runs, done = [], 0
    for size in (4, 2, 1):
        while quads - done >= size:
            runs.append(Run((*indices[:-1], indices[-1] + 4 * done), size))
            done += size
    return runs


def scaled(acc: Expr, multiplier: Expr) -> Expr:
    """float32x4: acc * multiplier."""
    return acc.astype(f"float32x{neon.lanes_of(acc)}") * multiplier


def requantized(quads: Sequence[Expr], zero_point: Expr, dtype: str = "int8") -> Expr:
    """int8x16 (4 quads) or int8x8 (2): float32x4 products rounded, plus the int16x8 zero point, saturated.

    dtype int16: int16x16 or int16x8 in the range of a wide tensor.
    """
    halves = []
    low, high = (neon.splat(tirx.const(bound, "int16"), 8) for bound in QRANGE["int16"])
    rounded = [neon.narrow_to_int16(neon.round_to_int32(quad)) for quad in quads]
    for i in range(0, len(rounded), 2):
        half = neon.saturating_add(neon.concat(*rounded[i : i + 2]), zero_point)
        halves.append(neon.narrow_to_int8(half) if dtype == "int8" else tirx.min(tirx.max(half, low), high))
    return neon.concat(*halves)


def fixed(acc: Expr, multiplier: Expr) -> Expr:
    """int32x4: kernels.requantize.fixed."""
    limit = neon.splat(tirx.const(float(FIXED_LIMIT), "float32"), 4)
    f = tirx.max(scaled(acc, multiplier), neon.splat(tirx.const(-float(FIXED_LIMIT), "float32"), 4))
    return neon.round_to_int32(tirx.min(f, limit))


def zero_point_vector(zero_point: Expr) -> tirx.Var:
    """int16x8 of an int32 zero point."""
    return bind(neon.splat(zero_point.astype("int16"), 8), "zp")


def widen(x: Expr) -> list[Expr]:
    """The quads of an int8 or int16 vector as int16x4 each."""
    lanes = neon.lanes_of(x)
    if lanes < 8:
        return [x.astype("int16x4")]
    if str(x.ty.dtype).startswith("int16"):
        return [neon.shuffle([x], range(i, i + 4)) for i in range(0, lanes, 4)]
    wide = [bind(neon.shuffle([x], range(i, i + 8)).astype("int16x8"), "wide") for i in range(0, lanes, 8)]
    return [part for half in wide for part in (neon.low(half, 4), neon.high(half, 4))]


def table_vectors(lut: tirx.Buffer) -> list[tirx.Var]:
    """The sixteen registers of a table whose entry 0 belongs to -128, ordered for int8 values read as unsigned."""
    return [bind(lut.vload([(128 + 16 * i) % 256], "int8x16"), "table") for i in range(16)]


def emit_residual_inputs(r: tirx.Buffer, runs: Sequence[Run]) -> list[Expr]:
    """int16x4 residuals of each quad of `runs`."""
    quads: list[Expr] = []
    for run in runs:
        quads += widen(bind(r.vload(list(run.indices), f"{r.dtype}x{4 * run.quads}"), "r"))
    return quads


def group_runs(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs in order, gathered into groups of at most QUADS quads."""
    groups: list[list[Run]] = [[]]
    for run in runs:
        if sum(other.quads for other in groups[-1]) + run.quads > QUADS:
            groups.append([])
        groups[-1].append(run)
    return groups


def emit_stores(y: tirx.Buffer, runs: Sequence[Run], values: Expr) -> None:
    """Store the quads of `values`, of y's dtype, to the runs, in order."""
    lanes, at = neon.lanes_of(values), 0
    for run in runs:
        width = 4 * run.quads
        part = values if width == lanes else neon.shuffle([values], range(at, at + width))
        store_vector(y, run.indices, part, width)
        at += width


def padded_quads(quads: Sequence[Expr]) -> list[Expr]:
    """The quads, the last repeated until there are 2 or 4: whole registers to narrow into."""
    size = 2 if len(quads) <= 2 else QUADS
    return [*quads, *[quads[-1]] * (size - len(quads))]


def emit_look_up(y: tirx.Buffer, lut: tirx.Buffer, first: Expr, size: int) -> None:
    """Replace `size` bytes of y, from byte `first` of it, by their entries of the table."""
    emit_translation(flat(y), first, flat(y), first, lut, size)


def emit_translation(x: tirx.Buffer, x_at: Expr, y: tirx.Buffer, y_at: Expr, lut: tirx.Buffer, size: int) -> None:
    """y[y_at + i] = lut[x[x_at + i]] for `size` bytes of one-dimensional buffers, 16 at a time and then one by one."""
    vectors = size // 16
    if vectors:
        table = table_vectors(lut)
        unrolled = largest_divisor(vectors, MAX_UNROLLED)
        with loop(vectors // unrolled, "block") as block:
            for u in range(unrolled):
                at = (block * unrolled + u) * 16
                found = neon.look_up(table, bind(x.vload([x_at + at], "int8x16"), "q"))
                store_vector(y, [y_at + at], found, 16)
    with loop(size - 16 * vectors, "byte") if size % 16 > 1 else nullcontext(tirx.IntImm("int32", 0)) as byte:
        if size % 16:
            at = 16 * vectors + byte
            T.buffer_store(y, lut[x[x_at + at].astype("int32") + 128], [y_at + at])


def flat(buffer: tirx.Buffer) -> tirx.Buffer:
    """The same memory as one axis."""
    size = math.prod(int(extent) for extent in buffer.shape)
    alias = T.decl_buffer((size,), str(buffer.dtype), data=buffer.data)
    IRBuilder.name(f"{buffer.name}_flat", alias)
    return alias
