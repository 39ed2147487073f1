from __future__ import annotations

import subprocess

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tvm.script import tirx as T

from edgenext_tvm.codegen.c_source import C_TARGET, float_literal, kernel_definitions, prototype, used_bit_casts
from edgenext_tvm.codegen.plain_c import lower_kernel
from edgenext_tvm.errors import UserError


@given(st.floats(width=32, allow_nan=False))
def test_float_literals_read_back_exactly(value):
    text = float_literal(value, "float32")
    if np.isinf(value):
        assert text.strip("()") in ("INFINITY", "-INFINITY")
    else:
        assert np.float32(text.strip("()").rstrip("f")) == np.float32(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [(12582912.0, "12582912.0f"), (-128.0, "(-128.0f)"), (1e-5, "1e-05f"), (float("nan"), "NAN"), (0.1, "0.1f")],
)
def test_float_literals_are_short(value, text):
    assert float_literal(value, "float32") == text


def test_the_definition_is_exact_portable_c(dense_func, check_golden):
    kernel = lower_kernel(dense_func, "enx_dense", C_TARGET, [4])
    definition = kernel_definitions([kernel])["enx_dense"]
    assert "12582912.0f" in definition
    assert "*(int32_t" not in definition
    assert used_bit_casts([definition]) == [("bits_of_float_i32", "float", "int32_t")]
    check_golden("dense.c", definition + "\n")


def test_read_only_pointers_are_const_and_all_are_restrict(scratch_func):
    kernel = lower_kernel(scratch_func, "enx_peak", C_TARGET, [1])
    assert prototype(kernel) == (
        "int32_t enx_peak(const float *restrict x, float *restrict y, float *restrict scratch_ws, "
        "int32_t begin, int32_t end)"
    )


def test_a_parameter_called_begin_does_not_clash(tmp_path):
    @T.prim_func(s_tir=True)
    def clash(begin: T.Buffer((8,), "int8"), y: T.Buffer((8,), "int8")):
        for i in T.parallel(8):
            with T.sblock("copy"):
                vi = T.axis.remap("S", [i])
                y[vi] = begin[vi]

    definition = kernel_definitions([lower_kernel(clash, "enx_clash", C_TARGET, [1])])["enx_clash"]
    source = tmp_path / "clash.c"
    source.write_text(f"#include <stdint.h>\n{definition}\n")
    subprocess.run(["cc", "-std=c99", "-Wall", "-Werror", "-c", str(source), "-o", str(tmp_path / "o")], check=True)


def test_a_bit_cast_that_c_sources_do_not_support_is_named():
    @T.prim_func(s_tir=True)
    def cast(x: T.Buffer((8,), "float16"), y: T.Buffer((8,), "int16")):
        for i in range(8):
            with T.sblock("cast"):
                vi = T.axis.remap("S", [i])
                y[vi] = T.reinterpret("int16", x[vi])

    with pytest.raises(UserError, match="cannot write the bit cast float16 -> int16 in C; supported"):
        kernel_definitions([lower_kernel(cast, "enx_cast", C_TARGET, [1])])
