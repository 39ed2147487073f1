"""Schedules of the kernels that are matrix products: dense and conv2d, with any epilogue."""

from __future__ import annotations

from tvm import s_tir
from tvm.s_tir.schedule import LoopRV, SBlockRV

from .vector_unit import VectorUnit, largest_divisor, matmul_tile

MAX_ROW_GROUP = 8
"""Row tiles that reuse one panel of weights while it is in the first-level cache."""
MIN_PARALLEL = 8
"""Iterations the outermost loop keeps, so that a few cores share it evenly."""



def optional_block(sch: s_tir.Schedule, name: str) -> SBlockRV | None:
    """Return the block of that name or None."""
    names = {sch.get(child).name_hint for child in sch.get_child_blocks(sch.get_sblock("root"))}
    return sch.get_sblock(name) if name in names else None


def schedule_matmul(sch: s_tir.Schedule, unit: VectorUnit) -> None:
    """Tile rows and output channels; sums stay in registers over the whole reduction; the epilogue runs per tile."""
    acc, out, q = sch.get_sblock("acc"), sch.get_sblock("out"), optional_block(sch, "q")
    if (pad := optional_block(sch, "pad")) is not None:
        sch.compute_inline(pad)
    *outer, row, column = sch.get_loops(out)
    tile = matmul_tile(extent(sch, row), extent(sch, column), unit)
    row_tiles = extent(sch, row) // tile.rows
    outer_extent = 1
    for loop in outer:
        outer_extent *= extent(sch, loop)
    group = largest_divisor(row_tiles, min(MAX_ROW_GROUP, max(1, row_tiles * outer_extent // MIN_PARALLEL)))
    row_outer, row_group, row_inner = sch.split(row, [None, group, tile.rows])
    column_outer, vector, lane = sch.split(column, [None, tile.vectors, tile.lanes])
    sch.reorder(*outer, row_outer, column_outer, row_group, row_inner, vector, lane)
    top = sch.fuse(*outer, row_outer) if outer else row_outer
    if extent(sch, top) == 1:
        top = sch.fuse(top, column_outer)
    sch.parallel(top)
    if q is not None:
        sch.compute_at(q, row_group, preserve_unit_loops=True)
        unroll_tile(sch, *tile_loops(sch, q, tile.lanes))
    else:
        unroll_tile(sch, row_inner, vector, lane)
    sch.compute_at(acc, row_group, preserve_unit_loops=True)
    accumulate_in_registers(sch, acc, tile.lanes)


def extent(sch: s_tir.Schedule, loop: LoopRV) -> int:
    """Return a loop's constant extent."""
    return int(sch.get(loop).extent)


def tile_loops(sch: s_tir.Schedule, block: SBlockRV, lanes: int) -> tuple[LoopRV, LoopRV, LoopRV]:
    """Split the last two loops of a computed-at spatial block into (row, vector, lane)."""
    *_, row, column = sch.get_loops(block)
    vector, lane = sch.split(column, [None, lanes])
    return row, vector, lane


def unroll_tile(sch: s_tir.Schedule, *loops: LoopRV) -> None:
    """Unroll all given loops but the last, which is vectorised."""
    for loop in loops[:-1]:
        sch.unroll(loop)
    if extent(sch, loops[-1]) > 1:
        sch.vectorize(loops[-1])


def accumulate_in_registers(sch: s_tir.Schedule, acc: SBlockRV, lanes: int) -> None:
    """Turn [.., row, column, reductions..] of a computed-at reduction into reductions outside, registers inside."""
    loops = sch.get_loops(acc)
    kinds = [int(v.iter_type) for v in sch.get(acc).iter_vars]
    num_reductions = sum(kind == 2 for kind in kinds)
    *_, row, column = loops[: len(loops) - num_reductions]
    reductions = loops[len(loops) - num_reductions :]
    vector, lane = sch.split(column, [None, lanes])
    sch.reorder(*reductions, row, vector, lane)
    unroll_tile(sch, row, vector, lane)
    sch.decompose_reduction(acc, reductions[0])
