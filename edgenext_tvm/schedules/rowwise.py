"""Schedules of the kernels without a matrix product: layer_norm, lut, add, rescale, global_avg_pool."""

from __future__ import annotations

import math

from tvm import s_tir
from tvm.s_tir.schedule import LoopRV, SBlockRV

from .depthwise import channel_lanes
from .matmul import MIN_PARALLEL, extent, unroll_tile
from .vector_unit import VectorUnit, largest_divisor

MAX_ROWS_PER_CHUNK = 16
MAX_LANES = 16


def parallel_rows(sch: s_tir.Schedule, row: LoopRV) -> LoopRV:
    """Make chunks of rows the parallel loop; return the loop over one row of a chunk."""
    rows = largest_divisor(extent(sch, row), min(MAX_ROWS_PER_CHUNK, max(1, extent(sch, row) // MIN_PARALLEL)))
    chunk, row_inner = sch.split(row, [None, rows])
    sch.parallel(chunk)
    return row_inner


def vectorize_channels(sch: s_tir.Schedule, channel: LoopRV) -> None:
    """Vectorise over channels where a power of two from 4 divides them; else leave the loop to LLVM's vectoriser."""
    lanes = math.gcd(extent(sch, channel), MAX_LANES)
    if lanes >= 4:
        _, lane = sch.split(channel, [None, lanes])
        sch.vectorize(lane)


def schedule_layer_norm(sch: s_tir.Schedule, unit: VectorUnit) -> None:
    """A row at a time: both sums, the scale, then the output; the row stays in the first-level cache."""
    row, channel = sch.get_loops(sch.get_sblock("out"))
    row_inner = parallel_rows(sch, row)
    for name in ("scale", "squares", "sum"):
        block = sch.get_sblock(name)
        sch.compute_at(block, row_inner, preserve_unit_loops=True)
    vectorize_channels(sch, channel)


def schedule_lut(sch: s_tir.Schedule, unit: VectorUnit) -> None:
    """Chunks of rows in parallel; look-ups are scalar, as no target here has a 256-entry byte gather."""
    row, _ = sch.get_loops(sch.get_sblock("out"))
    parallel_rows(sch, row)


def schedule_add(sch: s_tir.Schedule, unit: VectorUnit) -> None:
    """Chunks of rows in parallel, channels vectorised."""
    row, channel = sch.get_loops(sch.get_sblock("out"))
    parallel_rows(sch, row)
    vectorize_channels(sch, channel)


def schedule_global_avg_pool(sch: s_tir.Schedule, unit: VectorUnit) -> None:
    """Blocks of channels in parallel, their sums in registers over the whole image."""
    acc, out = sch.get_sblock("acc"), sch.get_sblock("out")
    n, c = sch.get_loops(out)
    lanes = channel_lanes(extent(sch, c), unit)
    c_outer, lane = sch.split(c, [None, lanes])
    top = sch.fuse(n, c_outer)
    sch.parallel(top)
    unroll_tile(sch, lane)
    sch.compute_at(acc, top, preserve_unit_loops=True)
    registers_over_reduction(sch, acc, 2)


def registers_over_reduction(sch: s_tir.Schedule, acc: SBlockRV, num_reductions: int) -> None:
    """Move the last spatial loop of a computed-at reduction inside its reductions and vectorise it."""
    loops = sch.get_loops(acc)
    lane, reductions = loops[-num_reductions - 1], loops[-num_reductions:]
    sch.reorder(*reductions, lane)
    unroll_tile(sch, lane)
    sch.decompose_reduction(acc, reductions[0])
