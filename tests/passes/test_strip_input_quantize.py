"""StripInputQuantize: the image enters as int8 and the parameters move to an attribute."""

from __future__ import annotations

import json

import tvm
from tvm.script import ir as I
from tvm.script import relax as R

from edgenext_tvm.passes.strip_input_quantize import INPUT_ATTR, strip_input_quantize


@I.ir_module
class Quantized:
    @R.function
    def main(x: R.Tensor((2, 6), "float32")):
        with R.dataflow():
            a = R.quantize(x, R.const(0.5, "float32"), R.const(3, "int8"), out_dtype="int8", axis=-1)
            b = R.reshape(a, R.shape([12]))
            R.output(b)
        return b


def test_the_input_becomes_int8_and_keeps_its_parameters() -> None:
    mod = strip_input_quantize(Quantized)
    assert str(mod["main"].params[0].ty.dtype) == "int8"
    assert json.loads(str(mod["main"].attrs[INPUT_ATTR])) == {"scale": 0.5, "zero_point": 3}


def test_an_input_quantized_in_two_ways_stays_float() -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((2, 6), "float32")):
            with R.dataflow():
                a = R.quantize(x, R.const(0.5, "float32"), R.const(3, "int8"), out_dtype="int8", axis=-1)
                b = R.quantize(x, R.const(0.25, "float32"), R.const(3, "int8"), out_dtype="int8", axis=-1)
                c = R.concat((a, b), axis=0)
                R.output(c)
            return c

    tvm.ir.assert_structural_equal(strip_input_quantize(Before), Before)


def test_a_wide_input_stays_float(network) -> None:
    before = network(lambda g, x: g.quantize(x, 0.5, 3, "int16"), 2, 6, dtype="float32")
    tvm.ir.assert_structural_equal(strip_input_quantize(before), before)
