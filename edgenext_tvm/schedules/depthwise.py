"""Schedule of depthwise convolution: channels vectorised, a row of input pixels held in registers across taps."""

from __future__ import annotations

import tvm
from tvm import s_tir, tirx

from ..kernels import Depthwise
from .matmul import extent, optional_block, tile_loops, unroll_tile
from .space import Decisions, Knob, Space
from .vector_unit import VectorUnit, divisors, largest_divisor, odd_width_cost, registers

MAX_UNROLLED_TAPS = 40
"""Vector multiply-adds of one kernel row that are unrolled: it bounds code size."""
MAX_COLUMNS = 4
MAX_TUNED_COLUMNS = 8
MAX_LOCAL_BYTES = 1023


def channel_lanes(c: int, unit: VectorUnit) -> int:
    """Return the divisor of C that fills int32 vectors best, up to 16 lanes or four registers."""
    best = (0.0, 1)
    for lanes in divisors(c):
        if lanes <= max(16, unit.lanes):
            best = max(best, (lanes / odd_width_cost(lanes) / (registers(lanes, unit) + 1), lanes))
    return best[1]


def depthwise_space(isa: str, kernel: Depthwise, func: tirx.PrimFunc, unit: VectorUnit) -> Space:
    """Return the space of plain loops for any instruction set: pixels and channels whose sums stay in registers."""
    lanes = channel_lanes(kernel.c, unit)
    width = kernel.out_hw[1]
    budget = max(1, unit.accumulators // registers(lanes, unit))
    columns = largest_divisor(width, min(MAX_COLUMNS, budget))

    def fits(decisions: Decisions) -> bool:
        sums = decisions["columns"] * registers(decisions["lanes"], unit)
        return sums <= max(unit.accumulators, columns * registers(lanes, unit))

    def build(decisions: Decisions) -> tirx.PrimFunc:
        sch = s_tir.Schedule(tvm.IRModule({"main": func}))
        schedule_depthwise(sch, kernel, decisions["columns"], decisions["lanes"])
        return sch.mod["main"]

    lane_values = {d for d in (unit.lanes // 2, unit.lanes, 2 * unit.lanes) if d and kernel.c % d == 0} | {lanes}
    column_values = {d for d in divisors(width) if d <= MAX_TUNED_COLUMNS} | {columns}
    knobs = (
        Knob("columns", tuple(sorted(column_values)), columns),
        Knob("lanes", tuple(sorted(lane_values)), lanes),
    )
    return Space(f"{isa}.depthwise", build, knobs, fits)


def schedule_depthwise(sch: s_tir.Schedule, kernel: Depthwise, columns: int, lanes: int) -> None:
    """One parallel iteration per output row; tiles of pixels x channels; kernel rows loop, the taps of a row unroll."""
    acc, out = sch.get_sblock("acc"), sch.get_sblock("out")
    pad, q = optional_block(sch, "pad"), optional_block(sch, "q")
    n, i, j, c = sch.get_loops(out)
    j_outer, j_inner = sch.split(j, [None, columns])
    c_outer, c_inner = sch.split(c, [None, lanes])
    sch.reorder(n, i, c_outer, j_outer, j_inner, c_inner)
    sch.parallel(sch.fuse(n, i))
    if q is not None:
        sch.compute_at(q, j_outer, preserve_unit_loops=True)
        unroll_tile(sch, *tile_loops(sch, q, lanes))
    else:
        unroll_tile(sch, j_inner, c_inner)
    sch.compute_at(acc, j_outer, preserve_unit_loops=True)
    *_, row, column, tap_row, tap = sch.get_loops(acc)
    sch.reorder(tap_row, tap, row, column)
    unroll_taps = kernel.kw * columns <= MAX_UNROLLED_TAPS
    if unroll_taps:
        sch.unroll(tap)
    unroll_tile(sch, row, column)
    if pad is not None:
        seen_bytes = ((columns - 1) * kernel.stride_w + kernel.kw) * lanes
        if seen_bytes <= MAX_LOCAL_BYTES:
            sch.compute_at(pad, tap_row, preserve_unit_loops=True)
            *_, pixel, channel = sch.get_loops(pad)
            if unroll_taps:
                sch.unroll(pixel)
            if extent(sch, channel) > 1:
                sch.vectorize(channel)
        else:
            sch.compute_inline(pad)
    sch.decompose_reduction(acc, tap_row)
