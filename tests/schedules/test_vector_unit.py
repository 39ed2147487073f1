from __future__ import annotations

import pytest

from edgenext_tvm.schedules.vector_unit import (
    VECTOR_UNITS,
    divisors,
    largest_divisor,
    matmul_tile,
    registers,
    vector_unit,
)


@pytest.mark.parametrize("isa", VECTOR_UNITS)
@pytest.mark.parametrize("rows", [1, 7, 17, 49, 64, 4096])
@pytest.mark.parametrize("columns", [1, 3, 17, 24, 88, 100, 168, 1000, 1216])
def test_tiles_divide_the_matrix_and_fit_the_registers(isa: str, rows: int, columns: int) -> None:
    unit = vector_unit(isa)
    tile = matmul_tile(rows, columns, unit)
    assert rows % tile.rows == 0
    assert columns % (tile.vectors * tile.lanes) == 0
    assert tile.rows * tile.vectors * registers(tile.lanes, unit) <= unit.accumulators
    # LLVM's stack allocations stay below 1 KiB.
    assert 4 * tile.rows * tile.vectors * tile.lanes < 1024


@pytest.mark.parametrize("isa", VECTOR_UNITS)
def test_common_channel_counts_get_power_of_two_vectors(isa: str) -> None:
    for columns in (24, 32, 48, 88, 96, 160, 168, 192, 304, 1000):
        lanes = matmul_tile(64, columns, vector_unit(isa)).lanes
        assert lanes & (lanes - 1) == 0 and lanes >= 4, columns


def test_registers_round_odd_widths_up() -> None:
    unit = VECTOR_UNITS["aarch64"]
    assert [registers(lanes, unit) for lanes in (1, 4, 5, 8, 9, 16)] == [1, 1, 2, 2, 4, 4]


def test_divisors() -> None:
    assert divisors(12) == [1, 2, 3, 4, 6, 12]
    assert largest_divisor(49, 8) == 7
    assert largest_divisor(17, 8) == 1
    assert largest_divisor(6, 0) == 1
