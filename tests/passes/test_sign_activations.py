"""SignActivations: uint8 tensors become int8 with the zero point 128 lower."""

from __future__ import annotations

import tvm
from tvm.script import ir as I
from tvm.script import relax as R

from edgenext_tvm.passes.sign_activations import sign_activations


def test_uint8_becomes_int8() -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((2, 6), "float32")):
            with R.dataflow():
                a = R.quantize(x, R.const(0.5, "float32"), R.const(131, "uint8"), out_dtype="uint8", axis=-1)
                b = R.dequantize(a, R.const(0.5, "float32"), R.const(131, "uint8"), out_dtype="float32", axis=-1)
                R.output(b)
            return b

    @I.ir_module
    class Expected:
        @R.function
        def main(x: R.Tensor((2, 6), "float32")):
            with R.dataflow():
                a = R.quantize(x, R.const(0.5, "float32"), R.const(3, "int8"), out_dtype="int8", axis=-1)
                b = R.dequantize(a, R.const(0.5, "float32"), R.const(3, "int8"), out_dtype="float32", axis=-1)
                R.output(b)
            return b

    tvm.ir.assert_structural_equal(sign_activations(Before), Expected)
    tvm.ir.assert_structural_equal(sign_activations(Expected), Expected)
