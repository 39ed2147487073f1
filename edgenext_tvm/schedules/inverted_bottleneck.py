"""Schedule of the inverted bottleneck: each parallel chunk of rows widens and narrows a few rows at a time."""

from __future__ import annotations

import tvm
from tvm import s_tir, tirx
from tvm.s_tir.schedule import LoopRV

from ..kernels import InvertedBottleneck
from .matmul import MIN_PARALLEL, accumulate_in_registers, extent, tile_loops, unroll_tile
from .space import Decisions, Knob, Space
from .vector_unit import VectorUnit, divisors, largest_divisor, matmul_tile

TILE_BYTES = 8 * 1024
"""Hidden values of one tile: they stay in the first-level cache beside a panel of either product's weights."""
MAX_TILE_ROWS = 192
"""Above the least common multiple of the rows of any two register tiles."""


def chunk_rows(kernel: InvertedBottleneck) -> int:
    """Return the rows of one parallel iteration: few iterations, for each of them has its own tile in the arena."""
    return kernel.t // largest_divisor(kernel.t, MIN_PARALLEL)


def tile_choices(kernel: InvertedBottleneck) -> tuple[int, ...]:
    """Return how many rows may be widened at once: divisors of a chunk."""
    return tuple(d for d in divisors(chunk_rows(kernel)) if d <= MAX_TILE_ROWS)


def default_tile(kernel: InvertedBottleneck, product_rows: int) -> int:
    """Return the most rows whose hidden values take TILE_BYTES, in whole multiples of `product_rows`.

    product_rows: a divisor of a chunk, how many rows a product computes at once.
    """
    whole = [rows for rows in tile_choices(kernel) if rows % product_rows == 0]
    return max([rows for rows in whole if rows * kernel.hidden <= TILE_BYTES] or whole[:1])


def portable_space(isa: str, kernel: InvertedBottleneck, func: tirx.PrimFunc, unit: VectorUnit) -> Space:
    """Return the space of plain loops for any instruction set; its one knob is how many rows are widened at once."""
    product = matmul_tile(chunk_rows(kernel), kernel.hidden, unit)
    knob = Knob("tile_rows", tile_choices(kernel), default_tile(kernel, product.rows))

    def build(decisions: Decisions) -> tirx.PrimFunc:
        sch = s_tir.Schedule(tvm.IRModule({"main": func}))
        schedule_inverted_bottleneck(sch, kernel, unit, decisions["tile_rows"])
        return sch.mod["main"]

    return Space(f"{isa}.inverted_bottleneck", build, (knob,))


def schedule_inverted_bottleneck(
    sch: s_tir.Schedule, kernel: InvertedBottleneck, unit: VectorUnit, tile_rows: int
) -> None:
    """Chunks of rows in parallel; per tile of `tile_rows` rows both products, each in register tiles."""
    out, hidden, q1 = sch.get_sblock("out"), sch.get_sblock("hidden"), sch.get_sblock("q1")
    row, column = sch.get_loops(out)
    chunk, tile, row = sch.split(row, [None, chunk_rows(kernel) // tile_rows, tile_rows])
    sch.parallel(chunk)
    group, row_inner, vector, lane = tile_product(sch, row, column, unit)
    lanes = extent(sch, lane)
    unroll_tile(sch, row_inner, vector, lane)
    acc = sch.get_sblock("acc")
    sch.compute_at(acc, group, preserve_unit_loops=True)
    accumulate_in_registers(sch, acc, lanes)

    sch.compute_at(hidden, tile, preserve_unit_loops=True)
    *_, row, column = sch.get_loops(hidden)
    group, _, _, lane = tile_product(sch, row, column, unit)
    sch.compute_at(q1, group, preserve_unit_loops=True)
    lanes = extent(sch, lane)
    unroll_tile(sch, *tile_loops(sch, q1, lanes))
    acc1 = sch.get_sblock("acc1")
    sch.compute_at(acc1, group, preserve_unit_loops=True)
    accumulate_in_registers(sch, acc1, lanes)


def tile_product(
    sch: s_tir.Schedule, row: LoopRV, column: LoopRV, unit: VectorUnit
) -> tuple[LoopRV, LoopRV, LoopRV, LoopRV]:
    """Tile a product's result, panel of columns by panel; return the loops (group of rows, row, vector, lane)."""
    tile = matmul_tile(extent(sch, row), extent(sch, column), unit)
    group, row_inner = sch.split(row, [None, tile.rows])
    panel, vector, lane = sch.split(column, [None, tile.vectors, tile.lanes])
    sch.reorder(panel, group, row_inner, vector, lane)
    return group, row_inner, vector, lane
