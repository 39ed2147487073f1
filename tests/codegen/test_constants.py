from __future__ import annotations

import numpy as np
import pytest

from edgenext_tvm.codegen.c_source import C_TARGET
from edgenext_tvm.codegen.constants import store_constants, total_bytes
from edgenext_tvm.codegen.lower_program import LoweredProgram, LoweredStep, lower_program
from edgenext_tvm.codegen.plan import MemoryPlan
from edgenext_tvm.codegen.program import ConstantRef, Program, Step, read_program
from edgenext_tvm.errors import UserError


def program_with(*arrays: np.ndarray) -> LoweredProgram:
    inputs = tuple(ConstantRef(i) for i in range(len(arrays)))
    step = Step("s", "head", "k", "test", inputs, (), 0, (), (), 0)
    program = Program((), arrays, (step,), {}, 0, 0)
    return LoweredProgram(program, (LoweredStep(step, None, inputs),), (), MemoryPlan({}, {}, 0, 0), arrays)


def test_equal_contents_are_stored_once_whatever_their_type():
    bits = np.array([1.0, 2.0], np.float32)
    table = store_constants(program_with(bits, bits.copy(), bits.view(np.int32)), "enx_m")
    (stored,) = table.stored
    assert stored.name == "enx_m_c0"
    assert stored.members == [("float", "float32", 2), ("int32_t", "int32", 2)]
    assert stored.uses == ("head (argument 0)", "head (argument 1)", "head (argument 2)")
    assert table.place == {0: 0, 1: 0, 2: 0}


def test_words_are_little_endian_and_padded():
    (stored,) = store_constants(program_with(np.array([1, 2, 3, 4, -1], np.int8)), "enx_m").stored
    assert stored.words == (0x04030201, 0x000000FF)
    assert stored.lines == ["0x04030201, 0x000000ff"]


def test_padding_does_not_merge_constants_of_different_length():
    short, long = np.array([1], np.int8), np.array([1, 0, 0, 0], np.int8)
    assert len(store_constants(program_with(short, long), "enx_m").stored) == 2


def test_sizes_count_alignment():
    stored = store_constants(program_with(np.zeros(65, np.int8), np.ones(1, np.int8)), "enx_m").stored
    assert total_bytes(stored) == 128 + 64


def test_the_small_model_shares_its_multipliers(small_model):
    lowered = lower_program(read_program(small_model.mod), "enx_small", C_TARGET, lambda func: func)
    table = store_constants(lowered, "enx_small")
    # 5 layers of weights, biases and multipliers, but only two distinct multiplier vectors
    assert len(table.stored) == 5 + 5 + 2


@pytest.mark.parametrize("dtype", ["int64", "float16"])
def test_a_type_that_kernels_cannot_read_is_named_with_its_layer(dtype):
    with pytest.raises(UserError, match=rf"layer 'head' uses a constant of type {dtype}; constants may be int8"):
        store_constants(program_with(np.ones(2, dtype)), "enx_m")
