"""What a schedule must know of an instruction set: vector width, registers, and the tile shapes that suit them."""

from __future__ import annotations

import dataclasses

from ..errors import UserError


@dataclasses.dataclass(frozen=True)
class VectorUnit:
    """One instruction set as a schedule sees it.

    lanes: int32 lanes of one register; accumulators: registers that a tile may fill with sums; weight_cost and
    input_cost: instructions to bring one register of weights or one broadcast input, relative to one multiply-add.
    """

    lanes: int
    accumulators: int
    weight_cost: float
    input_cost: float


VECTOR_UNITS = {
    "x86_64": VectorUnit(lanes=16, accumulators=15, weight_cost=1.0, input_cost=1.0),
    "aarch64": VectorUnit(lanes=4, accumulators=20, weight_cost=0.75, input_cost=1.0),
    # Portable C: loops of four lanes that a C compiler may vectorise; few sums, so that any register file holds them.
    "c": VectorUnit(lanes=4, accumulators=8, weight_cost=0.75, input_cost=1.5),
    "armv7": VectorUnit(lanes=4, accumulators=8, weight_cost=0.75, input_cost=1.5),
}

MAX_TILE_ROWS = 8
ODD_WIDTH_COST = 4.0


def vector_unit(isa: str) -> VectorUnit:
    """Return the vector unit of an instruction set; UserError if it is not known."""
    if isa not in VECTOR_UNITS:
        raise UserError(f"no schedules for instruction set {isa!r}; known ones: {', '.join(VECTOR_UNITS)}")
    return VECTOR_UNITS[isa]


def divisors(n: int) -> list[int]:
    """Return all divisors of n, ascending."""
    return [d for d in range(1, n + 1) if n % d == 0]


def largest_divisor(n: int, limit: int) -> int:
    """Return the largest divisor of n that is at most `limit`."""
    return max(d for d in range(1, min(n, max(limit, 1)) + 1) if n % d == 0)


def registers(lanes: int, unit: VectorUnit) -> int:
    """Return how many registers an int32 vector of `lanes` takes; odd widths are rounded up to a power of two."""
    return max(1, (1 << (lanes - 1).bit_length()) // unit.lanes)


def odd_width_cost(lanes: int) -> float:
    """Return how much slower LLVM's code is for a vector whose width is not a power of two, as a rough setting."""
    return 1.0 if lanes & (lanes - 1) == 0 else ODD_WIDTH_COST


@dataclasses.dataclass(frozen=True)
class MatmulTile:
    """rows x (vectors * lanes) int32 sums kept in registers."""

    rows: int
    vectors: int
    lanes: int


def matmul_tile(rows: int, columns: int, unit: VectorUnit, max_rows: int = MAX_TILE_ROWS) -> MatmulTile:
    """Return the tile of least cost per product whose sides divide rows and columns.

    Cost of one reduction step: rows broadcasts, vectors weight loads, rows * vectors multiply-adds, in registers.
    """
    best: tuple[float, MatmulTile] | None = None
    row_choices = [r for r in divisors(rows) if r <= max_rows]
    for lanes in (d for d in divisors(columns) if d <= 4 * unit.lanes):
        wide = registers(lanes, unit)
        for vectors in (d for d in divisors(columns // lanes) if d * wide <= unit.accumulators):
            for r in row_choices:
                if r * vectors * wide > unit.accumulators:
                    continue
                work = r * unit.input_cost + vectors * wide * odd_width_cost(lanes) * (unit.weight_cost + r)
                cost = work / (r * vectors * lanes)
                # Fewer, wider vectors give the same machine code from less source.
                cost += 1e-6 * vectors
                if best is None or cost < best[0]:
                    best = (cost, MatmulTile(r, vectors, lanes))
    assert best is not None
    return best[1]
