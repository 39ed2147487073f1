"""Table look-ups and additions with AVX2, row by row, up to 64 channels at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from ...intrinsics import x86_avx2 as avx2
from ...kernels import Add, Lut
from ..vector_unit import largest_divisor
from ..x86.elementwise import MAX_ROWS_PER_CHUNK, MIN_PARALLEL
from ..x86.emit import Expr, bind, build_function, load, store
from .epilogue import LANES, Table, load_bytes, requantize, slice_bytes

BLOCK = 2 * avx2.YMM_BYTES
"""Channels at a time: two vectors share what a table's look-up loads."""

Prepared = TypeVar("Prepared")


def over_rows(
    t: int, c: int, prepare: Callable[[], Prepared], emit: Callable[[Prepared, Expr, int, int], None]
) -> None:
    """Emit emit(prepare(), row, first channel, how many) over T rows of C channels, chunks of rows in parallel."""
    rows = largest_divisor(t, max(1, min(MAX_ROWS_PER_CHUNK, t // MIN_PARALLEL)))
    with T.parallel(t // rows) as chunk:
        prepared = prepare()
        with T.serial(rows) as row:
            token = bind("row", chunk * rows + row)
            for channel in range(0, c, BLOCK):
                emit(prepared, token, channel, min(BLOCK, c - channel))


def build_lut(kernel: Lut, func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Return `func` for AVX2."""

    def body(*buffers: tirx.Buffer) -> None:
        x, lut, *_, y = buffers

        def emit(table: Table, row: Expr, channel: int, count: int) -> None:
            parts = [(at, min(avx2.YMM_BYTES, count - at)) for at in range(0, count, avx2.YMM_BYTES)]
            indices = [load_bytes(x, [row, channel + at + kernel.x_offset], size) for at, size in parts]
            found = table([bind("q", q) for q in indices])
            for (at, size), entries in zip(parts, found, strict=True):
                store(y, [row, channel + at + kernel.y_offset], slice_bytes(entries, 0, size), size)

        over_rows(kernel.t, kernel.c, lambda: Table(lut), emit)

    return build_function(kernel, func, body)


def build_add(kernel: Add, func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Return `func` for AVX2."""

    def body(a: tirx.Buffer, b: tirx.Buffer, ap: tirx.Buffer, rs: tirx.Buffer, y: tirx.Buffer) -> None:
        zero_a, scale_a, zero_b, scale_b, zero_out = (bind("parameter", ap[i]) for i in range(5))
        multiplier = avx2.splat(bind("rs", rs[0]), "float32", LANES)

        def scaled(x: tirx.Buffer, position: list[Expr | int], lanes: int, zero: Expr, scale: Expr) -> Expr:
            q = avx2.widen(load(x, position, lanes), lanes, LANES).astype("int32x8")
            return (q - avx2.splat(zero, "int32", LANES)) * avx2.splat(scale, "int32", LANES)

        def emit(_: None, row: Expr, channel: int, count: int) -> None:
            for begin in range(channel, channel + count, avx2.YMM_BYTES):
                size = min(avx2.YMM_BYTES, channel + count - begin)
                sums = []
                for c in range(begin, begin + size, LANES):
                    lanes = min(LANES, begin + size - c)
                    left = scaled(a, [row, c + kernel.a_offset], lanes, zero_a, scale_a)
                    sums.append(left + scaled(b, [row, c + kernel.b_offset], lanes, zero_b, scale_b))
                out = requantize(sums, [multiplier] * len(sums), zero_out)
                store(y, [row, begin], slice_bytes(out, 0, size), size)

        over_rows(kernel.t, kernel.c, lambda: None, emit)

    return build_function(kernel, func, body)
