"""Schedules of the cross-covariance attention kernels."""

from __future__ import annotations

from tvm import s_tir
from tvm.s_tir.schedule import LoopRV, SBlockRV

from ..kernels import XcaApply, XcaScores
from .matmul import MIN_PARALLEL, accumulate_in_registers, unroll_tile
from .rowwise import registers_over_reduction
from .vector_unit import VectorUnit, largest_divisor, matmul_tile

MAX_ROW_TILES = 8


def schedule_xca_scores(sch: s_tir.Schedule, kernel: XcaScores, unit: VectorUnit) -> None:
    """One parallel iteration per head: Gram matrix in register tiles, norms, then the softmax row by row."""
    out = sch.get_sblock("out")
    head, query, _ = sch.get_loops(out)
    sch.parallel(head)
    for name in ("row_max", "logits"):
        sch.compute_at(sch.get_sblock(name), query, preserve_unit_loops=True)
    tile = matmul_tile(kernel.d, kernel.d, unit)
    for name in ("logits", "inverse"):
        channel = sch.get_loops(sch.get_sblock(name))[-1]
        lane = sch.split(channel, [None, tile.lanes])[1]
        unroll_tile(sch, lane)

    gram = sch.get_sblock("gram")
    *_, i, j, tokens = sch.get_loops(gram)
    i_outer, i_inner = sch.split(i, [None, tile.rows])
    j_outer, j_inner = sch.split(j, [None, tile.vectors * tile.lanes])
    sch.reorder(i_outer, j_outer, i_inner, j_inner, tokens)
    sums_to_registers(sch, gram, j_outer, tile.lanes, 1)

    norms = sch.get_sblock("norms")
    *_, channel, tokens = sch.get_loops(norms)
    channel_outer, lane = sch.split(channel, [None, tile.lanes])
    sums_to_registers(sch, norms, channel_outer, tile.lanes, 1)


def sums_to_registers(
    sch: s_tir.Schedule,
    acc: SBlockRV,
    at: LoopRV,
    lanes: int,
    num_reductions: int,
) -> None:
    """Sum a tile of an output buffer in registers and write it once, after the reduction."""
    write_back = sch.cache_write(acc, 0, "global")
    sch.reverse_compute_at(write_back, at, preserve_unit_loops=True)
    loops = sch.get_loops(acc)
    position = [sch.get(loop).same_as(sch.get(at)) for loop in loops].index(True)
    *spatial, last = loops[position + 1 : len(loops) - num_reductions]
    reductions = loops[len(loops) - num_reductions :]
    vector, lane = sch.split(last, [None, lanes])
    sch.reorder(*reductions, *spatial, vector, lane)
    unroll_tile(sch, *spatial, vector, lane)
    sch.decompose_reduction(acc, reductions[0])
    written = sch.get_loops(write_back)[position + 1 :]
    vector, lane = sch.split(written[-1], [None, lanes])
    unroll_tile(sch, *written[:-1], vector, lane)


def schedule_xca_apply(sch: s_tir.Schedule, kernel: XcaApply, unit: VectorUnit) -> None:
    """Chunks of tokens in parallel; per head the row sums once, then register tiles of tokens x channels."""
    acc, out = sch.get_sblock("acc"), sch.get_sblock("out")
    token, head, channel = sch.get_loops(out)
    tile = matmul_tile(kernel.t, kernel.d, unit)
    tiles = kernel.t // tile.rows
    group = largest_divisor(tiles, min(MAX_ROW_TILES, max(1, tiles // MIN_PARALLEL)))
    chunk, token_group, token_inner = sch.split(token, [None, group, tile.rows])
    channel_outer, vector, lane = sch.split(channel, [None, tile.vectors, tile.lanes])
    sch.reorder(chunk, head, channel_outer, token_group, token_inner, vector, lane)
    sch.parallel(chunk)
    unroll_tile(sch, token_inner, vector, lane)
    sch.compute_at(acc, token_group, preserve_unit_loops=True)
    loops = sch.get_loops(acc)
    row, head_unit, column, _ = loops[-4:]
    sch.reorder(head_unit, row, column)
    accumulate_in_registers(sch, acc, tile.lanes)
    for name in ("mult", "total"):
        block = sch.get_sblock(name)
        sch.compute_at(block, channel_outer, preserve_unit_loops=True)
    mult_channel = sch.get_loops(sch.get_sblock("mult"))[-1]
    unroll_tile(sch, *sch.split(mult_channel, [None, tile.lanes]))
    total = sch.get_sblock("total")
    *_, total_channel, _ = sch.get_loops(total)
    sch.split(total_channel, [None, tile.lanes])
    registers_over_reduction(sch, total, 1)
