from __future__ import annotations

import numpy as np
import pytest

from edgenext_tvm.codegen.aliasing import overwritable_inputs
from edgenext_tvm.errors import UserError
from edgenext_tvm.kernels import Dense, InvertedBottleneck
from edgenext_tvm.kernels.run_host import compile_on_host
from edgenext_tvm.kernels.sample_inputs import PATTERNS, sample_inputs

CASES = [
    InvertedBottleneck(1, 1, 1, 1),
    InvertedBottleneck(6, 5, 7, 3, "residual"),
    InvertedBottleneck(9, 24, 96, 24, "residual"),
    InvertedBottleneck(7, 17, 65, 40),
]


@pytest.mark.parametrize("kernel", CASES, ids=lambda kernel: kernel.task_hint)
def test_tir_gives_the_twins_bits(kernel: InvertedBottleneck, assert_twin_matches) -> None:
    assert_twin_matches(kernel)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("kernel", CASES[1:3], ids=lambda kernel: kernel.task_hint)
def test_tir_gives_the_bits_of_the_two_dense_kernels(kernel: InvertedBottleneck, pattern: str) -> None:
    widen = Dense(kernel.t, kernel.ci, kernel.hidden, "lut")
    narrow = Dense(kernel.t, kernel.hidden, kernel.co, kernel.epilogue)
    inputs = sample_inputs(kernel, 5, pattern)
    wide = compile_on_host(widen, widen.prim_func("widen"))(inputs[:6])
    expected = compile_on_host(narrow, narrow.prim_func("narrow"))([wide, *inputs[6:]])
    np.testing.assert_array_equal(compile_on_host(kernel, kernel.prim_func("both"))(inputs), expected)


def test_the_residual_may_be_overwritten_by_the_result() -> None:
    kernel = InvertedBottleneck(8, 4, 16, 4, "residual")
    assert overwritable_inputs(kernel.prim_func("k"), len(kernel.input_types())) == (10,)


def test_macs_are_those_of_both_products() -> None:
    assert InvertedBottleneck(4, 8, 32, 16).macs == 4 * 32 * (8 + 16)


def test_a_second_table_is_refused() -> None:
    with pytest.raises(UserError, match="epilogue is 'lut', must be one of none, residual"):
        InvertedBottleneck(4, 8, 32, 8, "lut")
