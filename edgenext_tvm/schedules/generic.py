"""A safe schedule for functions that carry no kernel description, such as float islands."""

from __future__ import annotations

from tvm import s_tir

from .matmul import extent
from .vector_unit import VectorUnit, largest_divisor

MAX_CHUNKS = 64


def schedule_generic(sch: s_tir.Schedule, unit: VectorUnit) -> None:
    """Inline elementwise producers; if one elementwise block remains, run it in parallel chunks."""
    for block in sch.get_child_blocks(sch.get_sblock("root")):
        try:
            sch.compute_inline(block)
        except s_tir.ScheduleError:
            continue
    blocks = sch.get_child_blocks(sch.get_sblock("root"))
    if len(blocks) != 1 or any(int(v.iter_type) != 0 for v in sch.get(blocks[0]).iter_vars):
        return
    loops = sch.get_loops(blocks[0])
    if not loops:
        return
    fused = sch.fuse(*loops)
    chunks = largest_divisor(extent(sch, fused), MAX_CHUNKS)
    chunk, _ = sch.split(fused, [chunks, None])
    sch.parallel(chunk)
