"""The portable schedule keeps a few hidden rows per parallel iteration, any number of them with equal bits."""

from __future__ import annotations

import numpy as np
import pytest
from tvm.target import Target

from edgenext_tvm.codegen.plain_c import PlainKernel, lower_kernel
from edgenext_tvm.kernels import InvertedBottleneck
from edgenext_tvm.kernels.run_host import compile_on_host
from edgenext_tvm.kernels.sample_inputs import PATTERNS, sample_inputs
from edgenext_tvm.schedules import schedule_kernel, space_of

SMALL = InvertedBottleneck(48, 10, 40, 12, "residual")
LARGE = InvertedBottleneck(4096, 24, 96, 24, "residual")
ISAS = ["x86_64", "aarch64", "armv7", "c"]


@pytest.mark.parametrize("isa", ISAS)
def test_every_number_of_rows_gives_the_twins_bits(isa: str) -> None:
    space = space_of(SMALL.prim_func("k"), isa)
    points = list(space.points())
    assert [point["tile_rows"] for point in points] == [1, 2, 3, 6]
    for point in points:
        run = compile_on_host(SMALL, space.at(point))
        for pattern in PATTERNS:
            inputs = sample_inputs(SMALL, 1, pattern)
            np.testing.assert_array_equal(run(inputs), SMALL.reference(*inputs), err_msg=f"{point} {pattern}")


def lower(kernel: InvertedBottleneck, isa: str, decisions: dict[str, int] | None = None) -> PlainKernel:
    func = schedule_kernel(kernel.prim_func("k"), isa, (), decisions)
    return lower_kernel(func, "k", Target({"kind": "llvm"}), [len(kernel.input_types())])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    "kernel",
    [LARGE, InvertedBottleneck(1024, 96, 384, 96, "residual"), InvertedBottleneck(256, 160, 640, 160)],
    ids=lambda kernel: kernel.task_hint,
)
def test_the_hidden_rows_take_a_fraction_of_the_whole_tensor(kernel: InvertedBottleneck, isa: str) -> None:
    lowered = lower(kernel, isa)
    assert lowered.extent == 8
    assert sum(lowered.hoisted_bytes) <= min(64 * 1024, kernel.t * kernel.hidden // 2)


def test_a_tile_has_one_place_per_parallel_iteration() -> None:
    assert lower(LARGE, "c", {"tile_rows": 64}).hoisted_bytes == (8 * 64 * 96,)
    assert lower(LARGE, "c", {"tile_rows": 8}).hoisted_bytes == ()


def test_few_rows_are_one_iteration() -> None:
    assert lower(InvertedBottleneck(1, 24, 96, 24), "aarch64").extent == 1
