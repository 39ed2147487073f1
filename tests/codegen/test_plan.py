from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgenext_tvm.codegen.plan import (
    ALIGN_BYTES,
    Buffer,
    lower_bound_bytes,
    place_buffers,
    plan_memory,
    share_memory,
)
from edgenext_tvm.codegen.program import ConstantRef, Program, Step, Value, ValueRef, read_program
from edgenext_tvm.errors import UserError


@st.composite
def buffer_lists(draw) -> list[Buffer]:
    buffers = []
    for _ in range(draw(st.integers(1, 40))):
        first = draw(st.integers(-1, 30))
        buffers.append(Buffer(draw(st.integers(1, 5000)), first, first + draw(st.integers(0, 8))))
    return buffers


@settings(max_examples=150, deadline=None)
@given(buffer_lists())
def test_live_buffers_never_share_a_byte(buffers):
    offsets, total = place_buffers(buffers)
    assert all(offset % ALIGN_BYTES == 0 for offset in offsets)
    assert all(o + b.size_bytes <= total for o, b in zip(offsets, buffers, strict=True))
    for i, a in enumerate(buffers):
        for j in range(i):
            b = buffers[j]
            if a.overlaps(b):
                apart = offsets[i] + a.size_bytes <= offsets[j] or offsets[j] + b.size_bytes <= offsets[i]
                assert apart, (a, offsets[i], b, offsets[j])
    assert lower_bound_bytes(buffers) <= total <= sum(b.size_bytes + ALIGN_BYTES for b in buffers)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 4000), min_size=2, max_size=40))
def test_a_chain_of_layers_needs_little_more_than_its_largest_pair(sizes):
    chain = [Buffer(size, i - 1, i) for i, size in enumerate(sizes)]
    _, total = place_buffers(chain)
    assert total <= 1.15 * lower_bound_bytes(chain)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(buffer_lists())
def test_the_plan_stays_near_the_lower_bound(buffers):
    _, total = place_buffers(buffers)
    assert total <= 1.35 * lower_bound_bytes(buffers)


def chain(*kernels: tuple, num_values: int, output: int) -> Program:
    """Values of 100 bytes; kernels: (inputs, outputs, inplace, may_alias, num_workspaces)."""
    values = tuple(Value(i, f"v{i}", (100,), "int8") for i in range(num_values))
    steps = tuple(
        Step(f"s{n}", f"layer{n}", "k", "test", inputs, outputs, workspaces, inplace, may_alias, 0)
        for n, (inputs, outputs, inplace, may_alias, workspaces) in enumerate(kernels)
    )
    return Program(values, (np.zeros(4, np.int8),), steps, {}, input=0, output=output)


def v(*ids: int) -> tuple[ValueRef, ...]:
    return tuple(ValueRef(i) for i in ids)


def test_a_residual_sum_takes_over_the_slot_of_the_input_that_dies():
    program = chain((v(0), (1,), (), (), 0), (v(1, 0), (2,), (), (1,), 0), num_values=3, output=2)
    shared = share_memory(program)
    assert shared == [{}, {1: 0}]
    plan = plan_memory(program, shared)
    assert plan.value_offsets[2] == plan.value_offsets[0] != plan.value_offsets[1]
    assert plan.arena_bytes == 256


def test_a_slot_is_not_taken_over_while_a_later_step_reads_it():
    steps = [(v(0), (1,), (), (), 0), (v(1, 0), (2,), (), (1,), 0), (v(2, 0), (3,), (), (), 0)]
    assert share_memory(chain(*steps, num_values=4, output=3))[1] == {}


def test_an_input_passed_twice_is_not_taken_over():
    program = chain((v(0, 0), (1,), (), (0, 1), 0), num_values=2, output=1)
    assert share_memory(program) == [{}]


def test_an_inplace_kernel_that_also_reads_the_tensor_gets_one_pointer():
    program = chain((v(0, 0), (1,), ((0, 1),), (), 0), num_values=2, output=1)
    assert share_memory(program) == [{0: 0, 1: 0}]


def test_overwriting_a_tensor_that_is_still_needed_is_an_error():
    steps = [(v(0), (1,), ((0, 0),), (), 0), (v(0), (2,), (), (), 0)]
    with pytest.raises(UserError, match=r"step 's0' \(layer0\) overwrites 'v0' in place, but a later step still reads"):
        share_memory(chain(*steps, num_values=3, output=2))


def test_overwriting_a_constant_is_an_error():
    program = chain(((ConstantRef(0),), (1,), ((0, 0),), (), 0), num_values=2, output=1)
    with pytest.raises(UserError, match="overwrites a constant; an in-place kernel needs a tensor computed before"):
        share_memory(program)


def test_a_workspace_lives_only_during_its_step():
    steps = [(v(0), (1, 2), (), (), 1), (v(1), (3, 4), (), (), 1)]
    program = chain(*steps, num_values=5, output=3)
    plan = plan_memory(program, share_memory(program))
    # three slots serve five tensors
    assert plan.arena_bytes == 3 * 128


def test_hoisted_workspaces_are_planned_with_the_rest():
    program = chain((v(0), (1,), (), (), 0), (v(1), (2,), (), (), 0), num_values=3, output=2)
    plan = plan_memory(program, [{}, {}], {1: (100, 50)})
    during_step_1 = {plan.value_offsets[1], plan.value_offsets[2], *plan.hoisted_offsets[1]}
    assert len(during_step_1) == 4


def test_the_small_model_is_planned_at_the_lower_bound(small_model):
    program = read_program(small_model.mod)
    plan = plan_memory(program, share_memory(program))
    assert plan.arena_bytes == plan.lower_bound_bytes
