"""Schedules for functions that carry no kernel description: float layers and float islands.

Producers are inlined; what stays a reduction sums a tile of rows x channels in registers. The terms of every sum keep
their order, and what is left runs block after block.
"""

from __future__ import annotations

import tvm
from tvm import s_tir, tirx
from tvm.s_tir.schedule import LoopRV, SBlockRV
from tvm_ffi import structural_walk

from .attention import sums_to_registers
from .matmul import extent
from .vector_unit import VectorUnit, largest_divisor, matmul_tile

MAX_CHUNKS = 64
MIN_LANES = 4
MAX_ROWS = 6
SPATIAL, REDUCED = 0, 2
CHEAP = ("tirx.if_then_else", "tirx.likely", "tirx.reinterpret")


def schedule_generic(sch: s_tir.Schedule, unit: VectorUnit) -> None:
    """Inline elementwise producers; tile products; if one elementwise block remains, run it in parallel chunks."""
    for block in sch.get_child_blocks(sch.get_sblock("root")):
        if is_costly(sch, block) and any(reduces(sch, consumer) for consumer in sch.get_consumers(block)):
            continue
        try:
            sch.compute_inline(block)
        except s_tir.ScheduleError:
            continue
    blocks = sch.get_child_blocks(sch.get_sblock("root"))
    for block in blocks:
        if is_product(sch, block):
            tile_product(sch, block, unit)
    if len(blocks) != 1 or any(int(v.iter_type) != SPATIAL for v in sch.get(blocks[0]).iter_vars):
        return
    loops = sch.get_loops(blocks[0])
    if not loops:
        return
    fused = sch.fuse(*loops)
    chunks = largest_divisor(extent(sch, fused), MAX_CHUNKS)
    chunk, _ = sch.split(fused, [chunks, None])
    sch.parallel(chunk)


def reduces(sch: s_tir.Schedule, block: SBlockRV) -> bool:
    """Return whether a block has an axis that it sums over."""
    return any(int(v.iter_type) == REDUCED for v in sch.get(block).iter_vars)


def is_costly(sch: s_tir.Schedule, block: SBlockRV) -> bool:
    """Return whether a block calls functions such as erf: a reduction that took it in would call them for every sum."""
    calls: list[str] = []

    def visit(node: object) -> None:
        if isinstance(node, tvm.ir.Call):
            calls.append(node.op.name)

    structural_walk(sch.get(block).body, visit)
    return any(name not in CHEAP for name in calls)


def is_product(sch: s_tir.Schedule, block: SBlockRV) -> bool:
    """Return whether a block reduces, and neighbours of its last spatial axis are neighbours in what it writes."""
    body = sch.get(block)
    kinds = [int(v.iter_type) for v in body.iter_vars]
    spatial = kinds.count(SPATIAL)
    if REDUCED not in kinds or kinds != [SPATIAL] * spatial + [REDUCED] * (len(kinds) - spatial):
        return False
    if len(sch.get_loops(block)) != len(kinds) or not isinstance(body.body, tirx.BufferStore) or spatial < 2:
        return False
    last = body.iter_vars[spatial - 1].var
    return body.body.indices[-1].same_as(last) and extent(sch, sch.get_loops(block)[spatial - 1]) >= MIN_LANES


def tile_product(sch: s_tir.Schedule, block: SBlockRV, unit: VectorUnit) -> None:
    """Keep a tile of the last two spatial axes in registers over the whole reduction."""
    kinds = [int(v.iter_type) for v in sch.get(block).iter_vars]
    spatial = kinds.count(SPATIAL)
    loops: list[LoopRV] = list(sch.get_loops(block))
    *outer, row, channel = loops[:spatial]
    tile = matmul_tile(extent(sch, row), extent(sch, channel), unit, MAX_ROWS)
    row_outer, row_inner = sch.split(row, [None, tile.rows])
    channel_outer, channel_inner = sch.split(channel, [None, tile.vectors * tile.lanes])
    sch.reorder(*outer, row_outer, channel_outer, row_inner, channel_inner, *loops[spatial:])
    sums_to_registers(sch, block, channel_outer, tile.lanes, len(kinds) - spatial)
