"""Schedules of the kernels that are matrix products: dense and conv2d, with any epilogue."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import tvm
from tvm import s_tir, tirx
from tvm.s_tir.schedule import LoopRV, SBlockRV

from ..kernels import Conv2d, Dense
from .space import Decisions, Knob, Space
from .vector_unit import (
    MAX_TILE_ROWS,
    MatmulTile,
    VectorUnit,
    divisors,
    largest_divisor,
    matmul_tile,
    registers,
)

MAX_ROW_GROUP = 8
"""Row tiles that reuse one panel of weights while it is in the first-level cache."""
MIN_PARALLEL = 8
"""Iterations the outermost loop keeps, so that a few cores share it evenly."""
MAX_TILE_BYTES = 1024
"""Sums of a tile, exclusive: larger buffers are not put on the stack."""


def optional_block(sch: s_tir.Schedule, name: str) -> SBlockRV | None:
    """Return the block of that name or None."""
    names = {sch.get(child).name_hint for child in sch.get_child_blocks(sch.get_sblock("root"))}
    return sch.get_sblock(name) if name in names else None


@dataclasses.dataclass(frozen=True)
class MatmulShape:
    """Extents that a tile divides: rows of a line, lines (images times rows of an image), columns."""

    rows: int
    lines: int
    columns: int

    @staticmethod
    def of(kernel: Dense | Conv2d) -> MatmulShape:
        """Return the shape of a kernel's output."""
        if isinstance(kernel, Dense):
            return MatmulShape(kernel.t, 1, kernel.co)
        oh, ow = kernel.out_hw
        return MatmulShape(ow, kernel.n * oh, kernel.co)

    def default_group(self, tile_rows: int) -> int:
        """Return how many row tiles reuse a panel of weights, with MIN_PARALLEL iterations left if there are."""
        tiles = self.rows // tile_rows
        return largest_divisor(tiles, min(MAX_ROW_GROUP, max(1, tiles * self.lines // MIN_PARALLEL)))


def matmul_space(isa: str, kernel: Dense | Conv2d, func: tirx.PrimFunc, unit: VectorUnit) -> Space:
    """Return the space of plain loops for any instruction set: the register tile, and row tiles a panel of weights."""
    shape = MatmulShape.of(kernel)
    best = matmul_tile(shape.rows, shape.columns, unit)
    best_group = shape.default_group(best.rows)

    def values(choices: Iterable[int], default: int) -> tuple[int, ...]:
        return tuple(sorted({*choices, default}))

    def fits(decisions: Decisions) -> bool:
        rows, vectors, lanes, group = (decisions[name] for name in ("rows", "vectors", "lanes", "group"))
        whole = shape.rows % (rows * group) == 0 and shape.columns % (vectors * lanes) == 0
        held = rows * vectors * registers(lanes, unit) <= unit.accumulators
        return whole and held and 4 * rows * vectors * lanes < MAX_TILE_BYTES

    def build(decisions: Decisions) -> tirx.PrimFunc:
        sch = s_tir.Schedule(tvm.IRModule({"main": func}))
        tile = MatmulTile(decisions["rows"], decisions["vectors"], decisions["lanes"])
        schedule_matmul(sch, tile, decisions["group"])
        return sch.mod["main"]

    widths = (lanes for lanes in (unit.lanes // 2, unit.lanes, 2 * unit.lanes) if lanes and shape.columns % lanes == 0)
    knobs = (
        Knob("rows", values((r for r in divisors(shape.rows) if r <= MAX_TILE_ROWS), best.rows), best.rows),
        Knob("vectors", values((v for v in (1, 2, 3, 4, 6) if shape.columns % v == 0), best.vectors), best.vectors),
        Knob("lanes", values(widths, best.lanes), best.lanes),
        Knob("group", values((g for g in (1, 2, 4, 8) if shape.rows % g == 0), best_group), best_group),
    )
    return Space(f"{isa}.{kernel.kind}", build, knobs, fits)


def schedule_matmul(sch: s_tir.Schedule, tile: MatmulTile, group: int) -> None:
    """Tile rows and output channels; sums stay in registers over the whole reduction; the epilogue runs per tile."""
    acc, out, q = sch.get_sblock("acc"), sch.get_sblock("out"), optional_block(sch, "q")
    if (pad := optional_block(sch, "pad")) is not None:
        sch.compute_inline(pad)
    *outer, row, column = sch.get_loops(out)
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
