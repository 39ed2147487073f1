from __future__ import annotations

import pytest
from tvm.script import tirx as T

from edgenext_tvm.codegen.aliasing import overwritable_inputs
from edgenext_tvm.kernels import Add, Conv2d, Dense, LayerNorm, Lut

POINTWISE = {"n": 1, "h": 4, "w": 4, "ci": 4, "co": 4, "kh": 1, "kw": 1}


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        (Dense(t=8, ci=4, co=4, epilogue="residual"), (5,)),
        (Conv2d(**POINTWISE, epilogue="residual"), (5,)),
        (Dense(t=8, ci=4, co=4), ()),
        (Add(t=8, c=4), (0, 1)),
        (Add(t=8, c=4, a_channels=8), (1,)),
        (Lut(t=8, c=4), (0,)),
        (Lut(t=8, c=4, x_channels=8, x_offset=4), ()),
        (LayerNorm(t=8, c=4), ()),
    ],
    ids=lambda value: value.task_hint if hasattr(value, "task_hint") else None,
)
def test_only_inputs_read_at_the_written_index_may_be_overwritten(kernel, expected):
    assert overwritable_inputs(kernel.prim_func("k"), len(kernel.input_types())) == expected


def test_a_read_at_a_neighbouring_index_forbids_it():
    @T.prim_func(s_tir=True)
    def shift(x: T.Buffer((8,), "int8"), y: T.Buffer((8,), "int8")):
        for i in range(8):
            with T.sblock("shift"):
                vi = T.axis.remap("S", [i])
                y[vi] = x[vi] + x[T.max(vi - 1, 0)]

    assert overwritable_inputs(shift, 1) == ()


def test_a_read_in_a_producer_forbids_it():
    @T.prim_func(s_tir=True)
    def twice(x: T.Buffer((8,), "int8"), y: T.Buffer((8,), "int8")):
        half = T.sblock_alloc_buffer((8,), "int8")
        for i in range(8):
            with T.sblock("producer"):
                vi = T.axis.remap("S", [i])
                half[vi] = x[vi] * T.int8(2)
        for i in range(8):
            with T.sblock("consumer"):
                vi = T.axis.remap("S", [i])
                y[vi] = half[vi] + x[vi]

    assert overwritable_inputs(twice, 1) == ()


def test_an_accumulated_output_forbids_it():
    @T.prim_func(s_tir=True)
    def accumulate(x: T.Buffer((8,), "int32"), y: T.Buffer((8,), "int32")):
        for i, k in T.grid(8, 4):
            with T.sblock("sum"):
                vi, vk = T.axis.remap("SR", [i, k])
                with T.init():
                    y[vi] = 0
                y[vi] += x[vi] * vk

    assert overwritable_inputs(accumulate, 1) == ()
