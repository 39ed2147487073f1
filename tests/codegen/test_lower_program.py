from __future__ import annotations

import dataclasses

import pytest

from edgenext_tvm.codegen.c_source import C_TARGET
from edgenext_tvm.codegen.lower_program import HoistedRef, lower_program
from edgenext_tvm.codegen.program import ConstantRef, ValueRef, read_program
from edgenext_tvm.errors import UserError
from edgenext_tvm.kernels.packing import Packing, with_packings


@dataclasses.dataclass(frozen=True)
class Refused(Packing):
    """A layout that no array suits."""

    kind = "refused"

    def pack(self, *arrays):
        raise UserError("weights do not suit")


@pytest.fixture(scope="module")
def lowered(small_model):
    return lower_program(read_program(small_model.mod), "enx_small", C_TARGET, lambda func: func)


def test_structurally_equal_kernels_are_one_function(lowered):
    assert [step.kernel.name for step in lowered.steps] == [
        "enx_small_dense_0",
        "enx_small_dense_1",
        "enx_small_dense_2",
        "enx_small_dense_1",
        "enx_small_dense_2",
        "enx_small_negate_0",
        "enx_small_pool_0",
        "enx_small_peak_0",
    ]
    assert len(lowered.kernels) == 6


def test_each_distinct_function_is_scheduled_once(small_model):
    scheduled = []

    def schedule(func):
        scheduled.append(str(func.attrs["global_symbol"]))
        return func

    lower_program(read_program(small_model.mod), "enx_small", C_TARGET, schedule)
    assert len(scheduled) == len(set(scheduled)) == 6


def test_every_pointer_of_a_kernel_has_an_operand(lowered):
    for step in lowered.steps:
        assert len(step.operands) == len(step.kernel.pointers)
    stem, project, mix, pool, peak = (lowered.steps[i] for i in (0, 2, 5, 6, 7))
    assert [type(o) for o in stem.operands] == [ValueRef, ConstantRef, ConstantRef, ConstantRef, ValueRef]
    # the residual and the output are one pointer
    assert [p.name for p in project.kernel.pointers] == ["x", "w", "bias", "mult", "y"]
    assert [p.name for p in mix.kernel.pointers] == ["y"]
    assert [p.name for p in pool.kernel.pointers] == ["x", "y", "total"]
    assert isinstance(peak.operands[-1], HoistedRef)


def test_the_plan_covers_values_and_hoisted_workspaces(lowered):
    plan = lowered.plan
    assert set(plan.value_offsets) == {value.id for value in lowered.program.values}
    assert set(plan.hoisted_offsets) == {7}
    assert plan.arena_bytes >= lowered.steps[7].kernel.hoisted_bytes[0]


def test_weights_that_cannot_be_packed_are_named_by_their_step(small_model):
    program = read_program(small_model.mod)
    first = program.steps[0]
    with pytest.raises(UserError) as error:
        lower_program(program, "enx_small", C_TARGET, lambda func: with_packings(func, [Refused(1, (1,))]))
    assert str(error.value) == f"step '{first.name}' ({first.layer}): weights do not suit"
