"""Any point of the portable spaces of depthwise gives the twins' bits, with sums that fit registers."""

from __future__ import annotations

import random

import numpy as np
import pytest

from edgenext_tvm.kernels import Depthwise
from edgenext_tvm.kernels.run_host import compile_on_host
from edgenext_tvm.kernels.sample_inputs import sample_inputs
from edgenext_tvm.schedules import space_of
from edgenext_tvm.schedules.vector_unit import VECTOR_UNITS, registers

KERNELS = [
    Depthwise(1, 6, 8, 24, 5, 5, 1, 1, 2, 2, 2, 2, epilogue="residual"),
    Depthwise(1, 5, 7, 17, 3, 3, 1, 1, 1, 1, 1, 1, 20, 2, 19, 1, "lut", True),
]


@pytest.mark.parametrize("isa", ["c", "x86_64"])
@pytest.mark.parametrize("kernel", KERNELS, ids=["24-channels", "17-channels"])
def test_sampled_points_give_the_twins_bits(kernel: Depthwise, isa: str) -> None:
    space = space_of(kernel.prim_func("k"), isa)
    points = list(space.points())
    for decisions in random.Random(1).sample(points, min(3, len(points))):
        run = compile_on_host(kernel, space.at(decisions))
        for pattern in ("random", "opposed"):
            inputs = sample_inputs(kernel, 1, pattern)
            np.testing.assert_array_equal(run(inputs), kernel.reference(*inputs), err_msg=f"{decisions} {pattern}")


@pytest.mark.parametrize("isa", VECTOR_UNITS)
def test_the_sums_of_every_point_fit_registers(isa: str) -> None:
    unit = VECTOR_UNITS[isa]
    space = space_of(Depthwise(1, 32, 32, 48, 5, 5, 1, 1, 2, 2, 2, 2).prim_func("k"), isa)
    points = list(space.points())
    assert space.default in points
    assert len(points) >= 4
    for point in points:
        assert point["columns"] * registers(point["lanes"], unit) <= unit.accumulators
