"""Any point of the portable spaces of dense and conv2d gives the twins' bits; the default is the tile of least cost."""

from __future__ import annotations

import random

import numpy as np
import pytest

from edgenext_tvm.errors import UserError
from edgenext_tvm.kernels import Conv2d, Dense
from edgenext_tvm.kernels.run_host import compile_on_host
from edgenext_tvm.kernels.sample_inputs import sample_inputs
from edgenext_tvm.schedules import space_of
from edgenext_tvm.schedules.vector_unit import VECTOR_UNITS, matmul_tile, registers

KERNELS: list[Dense | Conv2d] = [
    Dense(24, 20, 48, "lut"),
    Dense(49, 7, 17, "residual"),
    Dense(1, 12, 40, "none", "float32"),
    Conv2d(1, 9, 16, 3, 12, 3, 2, 1, 2, 1, 0, 1, 0),
]


def sampled(kernel: Dense | Conv2d, isa: str, count: int) -> list[dict[str, int]]:
    points = list(space_of(kernel.prim_func("k"), isa).points())
    return random.Random(0).sample(points, min(count, len(points)))


@pytest.mark.parametrize("isa", ["c", "x86_64"])
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.task_hint.replace(" ", "-"))
def test_sampled_points_give_the_twins_bits(kernel: Dense | Conv2d, isa: str) -> None:
    func = kernel.prim_func("k")
    for decisions in sampled(kernel, isa, 3):
        run = compile_on_host(kernel, space_of(func, isa).at(decisions))
        for pattern in ("random", "opposed"):
            inputs = sample_inputs(kernel, 1, pattern)
            np.testing.assert_array_equal(run(inputs), kernel.reference(*inputs), err_msg=f"{decisions} {pattern}")


@pytest.mark.parametrize("isa", VECTOR_UNITS)
def test_the_default_is_the_tile_of_least_cost(isa: str) -> None:
    for kernel in (Dense(64, 88, 352), Dense(1, 168, 1000), Dense(49, 24, 17)):
        tile = matmul_tile(kernel.t, kernel.co, VECTOR_UNITS[isa])
        default = space_of(kernel.prim_func("k"), isa).default
        assert (default["rows"], default["vectors"], default["lanes"]) == (tile.rows, tile.vectors, tile.lanes)


@pytest.mark.parametrize("isa", VECTOR_UNITS)
def test_the_sums_of_every_point_fit_registers(isa: str) -> None:
    unit = VECTOR_UNITS[isa]
    space = space_of(Dense(64, 88, 352, "lut").prim_func("k"), isa)
    points = list(space.points())
    assert space.default in points
    assert 50 <= len(points) <= 400
    for point in points:
        assert point["rows"] * point["vectors"] * registers(point["lanes"], unit) <= unit.accumulators
        assert 64 % (point["rows"] * point["group"]) == 0 == 352 % (point["vectors"] * point["lanes"])


def test_a_tile_that_does_not_divide_the_columns_is_refused() -> None:
    space = space_of(Dense(64, 88, 40).prim_func("k"), "c")
    with pytest.raises(UserError, match="c.dense: vectors is 3; allowed: 1, 2, 4"):
        space.at({**space.default, "vectors": 3})
