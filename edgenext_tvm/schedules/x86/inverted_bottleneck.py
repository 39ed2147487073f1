"""The inverted bottleneck by vpdpbusd: a few rows are widened into the first-level cache and narrowed from there.

Both products read bytes that were made unsigned once: a copy of the tile's inputs, and the hidden values, whose table
holds them that way. So a broadcast is one load.
"""

from __future__ import annotations

import dataclasses
import math

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from ...intrinsics import x86
from ...kernels import InvertedBottleneck
from ...kernels.packing import round_up
from ..inverted_bottleneck import chunk_rows, default_tile, tile_choices
from ..space import Decisions, Knob, Space
from ..vector_unit import divisors
from .emit import LANES, Expr, bind, build_function
from .epilogue import MAX_VECTORS, Epilogue, Table, store_bytes
from .matmul import (
    GROUP,
    HALF,
    MAX_ROWS,
    REGISTERS,
    Operands,
    Tile,
    emit_panels,
    packed_weights,
    steps_of,
    vectors_of,
)
from .matmul import choose_tile as choose_product_tile

FEWEST_SUMS = 12
"""Tiles with fewer sums in registers wait for each product: not worth trying."""


@dataclasses.dataclass(frozen=True)
class BottleneckTile:
    """tile_rows rows are widened and then narrowed, in tiles of each product: so many rows, so many vectors."""

    tile_rows: int
    wide_rows: int
    wide_vectors: int
    narrow_rows: int
    narrow_vectors: int


def inverted_bottleneck_space(kernel: InvertedBottleneck, func: tirx.PrimFunc) -> Space:
    """Return the space of an inverted bottleneck."""
    default = choose_tile(kernel)
    fewest_wide, fewest_narrow = default.wide_rows * default.wide_vectors, default.narrow_rows * default.narrow_vectors
    rows = tuple(d for d in divisors(chunk_rows(kernel)) if d <= MAX_ROWS)
    tile_rows = spread(tile_choices(kernel), default.tile_rows)
    knobs = (
        Knob("tile_rows", tile_rows, default.tile_rows),
        Knob("wide_rows", rows, default.wide_rows),
        Knob("wide_vectors", vector_choices(kernel.hidden), default.wide_vectors),
        Knob("narrow_rows", rows, default.narrow_rows),
        Knob("narrow_vectors", vector_choices(kernel.co), default.narrow_vectors),
    )

    def fits(d: Decisions) -> bool:
        whole = d["tile_rows"] % d["wide_rows"] == 0 == d["tile_rows"] % d["narrow_rows"]
        wide, narrow = d["wide_rows"] * d["wide_vectors"], d["narrow_rows"] * d["narrow_vectors"]
        enough = wide >= min(FEWEST_SUMS, fewest_wide) and narrow >= min(FEWEST_SUMS, fewest_narrow)
        return whole and enough and max(wide, narrow) <= REGISTERS

    def build(d: Decisions) -> tirx.PrimFunc:
        return build_inverted_bottleneck(kernel, func, BottleneckTile(**d))

    return Space("x86_vnni.inverted_bottleneck", build, knobs, fits)


def spread(values: tuple[int, ...], kept: int) -> tuple[int, ...]:
    """Return some of ascending `values`, each at least a third larger than the one before, with `kept`."""
    chosen = [kept]
    for value in values:
        if all(3 * max(value, other) >= 4 * min(value, other) for other in chosen):
            chosen.append(value)
    return tuple(sorted(chosen))


def vector_choices(channels: int) -> tuple[int, ...]:
    """Return how many vectors of sums per row may be in registers."""
    return tuple(range(1, min(MAX_VECTORS, vectors_of(channels)) + 1))


def choose_tile(kernel: InvertedBottleneck) -> BottleneckTile:
    """Return the tile of least cost: that of each product alone, on as many rows as the first-level cache likes."""
    rows = chunk_rows(kernel)
    wide = choose_product_tile(rows, vectors_of(kernel.hidden), 1, steps_of(kernel.ci), "lut")
    # Half vectors cost LLVM as many registers as a table does.
    like = "lut" if 0 < kernel.co % LANES <= HALF else "none"
    narrow = choose_product_tile(rows, vectors_of(kernel.co), 1, steps_of(kernel.hidden), like)
    tile_rows = default_tile(kernel, math.lcm(wide.rows, narrow.rows))
    return BottleneckTile(tile_rows, wide.rows, wide.vectors, narrow.rows, narrow.vectors)


def build_inverted_bottleneck(
    kernel: InvertedBottleneck, func: tirx.PrimFunc, tile: BottleneckTile | None = None
) -> tirx.PrimFunc:
    """Return `func` with both weights packed for vpdpbusd; each parallel iteration has its own few hidden rows."""
    tile = tile or choose_tile(kernel)
    tiles = chunk_rows(kernel) // tile.tile_rows

    def body(*buffers: tirx.Buffer) -> None:
        x, w1, bias1, mult1, qp1, lut, w2, bias2, mult2, qp2, *extra, y = buffers
        narrow = Epilogue(kernel.epilogue, mult2, qp2, extra, y)
        table = Table(lut, flipped=True)
        zero_point = bind("zp_hidden", qp1[1])
        with T.parallel(kernel.t // chunk_rows(kernel)) as chunk:
            inputs = rows_of_bytes("inputs", tile.tile_rows, kernel.ci)
            hidden = rows_of_bytes("hidden", tile.tile_rows, kernel.hidden)
            wide = Epilogue("lut", mult1, qp1, [lut], hidden, zero_point, table)
            with T.serial(tiles) as number:
                first = bind("first", chunk * chunk_rows(kernel) + number * tile.tile_rows)
                copy_unsigned(x, first, inputs, tile.tile_rows, kernel.ci)
                operands = Operands(inputs, w1, bias1, kernel.ci, lambda row, _: [row, 0], is_unsigned=True)
                wide_tile = Tile(tile.wide_rows, tile.wide_vectors, tile.tile_rows // tile.wide_rows)
                emit_panels(0, kernel.hidden, wide_tile, operands, wide, lambda row: [row])
                operands = Operands(hidden, w2, bias2, kernel.hidden, lambda row, _: [row, 0], is_unsigned=True)
                narrow_tile = Tile(tile.narrow_rows, tile.narrow_vectors, tile.tile_rows // tile.narrow_rows)
                emit_panels(0, kernel.co, narrow_tile, operands, narrow, lambda row: [first + row])

    packed = packed_weights(kernel.hidden, 1, kernel.ci) + packed_weights(kernel.co, 1, kernel.hidden, first=6)
    return build_function(kernel, func, body, packed)


def rows_of_bytes(name: str, rows: int, width: int) -> tirx.Buffer:
    """Return scratch for `rows` rows of `width` bytes and padding to whole steps; weights are 0 there."""
    buffer = T.alloc_buffer((rows, round_up(width, GROUP)), "int8")
    IRBuilder.name(name, buffer)
    return buffer


def copy_unsigned(x: tirx.Buffer, first: Expr, copy: tirx.Buffer, rows: int, width: int) -> None:
    """Emit copy[row] = x[first + row] + 128 as unsigned bytes."""
    flips = x86.splat(-128, "int8", x86.ZMM_BYTES)
    with T.serial(rows) as row:
        for channel in range(0, width, x86.ZMM_BYTES):
            count = min(x86.ZMM_BYTES, width - channel)
            value = bind("value", x86.load_bytes(x, [first + row, channel], count) ^ flips)
            store_bytes(copy, [row, channel], value, count)
