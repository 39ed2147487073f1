"""CanonicalizeQDQ: movement on int8 only, no needless quantize/dequantize pairs."""

from __future__ import annotations

import tvm
from tvm.script import ir as I
from tvm.script import relax as R

from edgenext_tvm.passes.canonicalize_qdq import canonicalize_qdq


def test_movement_between_dequantize_and_quantize_happens_on_int8() -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((2, 6), "int8")):
            with R.dataflow():
                a = R.dequantize(x, R.const(0.5, "float32"), R.const(3, "int8"), out_dtype="float32", axis=-1)
                b = R.reshape(a, R.shape([3, 4]))
                c = R.permute_dims(b, axes=[1, 0])
                d = R.quantize(c, R.const(0.5, "float32"), R.const(3, "int8"), out_dtype="int8", axis=-1)
                R.output(d)
            return d

    @I.ir_module
    class Expected:
        @R.function
        def main(x: R.Tensor((2, 6), "int8")):
            with R.dataflow():
                b = R.reshape(x, R.shape([3, 4]))
                d = R.permute_dims(b, axes=[1, 0])
                R.output(d)
            return d

    tvm.ir.assert_structural_equal(canonicalize_qdq(Before), Expected)


def test_a_result_is_quantized_before_it_is_reshaped() -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((2, 6), "float32")):
            with R.dataflow():
                a = R.nn.relu(x)
                b = R.reshape(a, R.shape([3, 4]))
                c = R.quantize(b, R.const(0.5, "float32"), R.const(3, "int8"), out_dtype="int8", axis=-1)
                R.output(c)
            return c

    @I.ir_module
    class Expected:
        @R.function
        def main(x: R.Tensor((2, 6), "float32")):
            with R.dataflow():
                a = R.nn.relu(x)
                b = R.quantize(a, R.const(0.5, "float32"), R.const(3, "int8"), out_dtype="int8", axis=-1)
                c = R.reshape(b, R.shape([3, 4]))
                R.output(c)
            return c

    tvm.ir.assert_structural_equal(canonicalize_qdq(Before), Expected)


def test_parts_of_a_concatenation_are_requantized_one_by_one() -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((2, 6), "int8"), y: R.Tensor((2, 6), "int8")):
            with R.dataflow():
                a = R.dequantize(x, R.const(0.5, "float32"), R.const(3, "int8"), out_dtype="float32", axis=-1)
                b = R.dequantize(y, R.const(0.25, "float32"), R.const(0, "int8"), out_dtype="float32", axis=-1)
                c = R.concat((a, b), axis=1)
                d = R.quantize(c, R.const(0.5, "float32"), R.const(3, "int8"), out_dtype="int8", axis=-1)
                R.output(d)
            return d

    @I.ir_module
    class Expected:
        @R.function
        def main(x: R.Tensor((2, 6), "int8"), y: R.Tensor((2, 6), "int8")):
            with R.dataflow():
                b = R.dequantize(y, R.const(0.25, "float32"), R.const(0, "int8"), out_dtype="float32", axis=-1)
                c = R.quantize(b, R.const(0.5, "float32"), R.const(3, "int8"), out_dtype="int8", axis=-1)
                d = R.concat((x, c), axis=1)
                R.output(d)
            return d

    tvm.ir.assert_structural_equal(canonicalize_qdq(Before), Expected)


def test_split_splits_int8() -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((2, 6), "int8")):
            with R.dataflow():
                a = R.dequantize(x, R.const(0.5, "float32"), R.const(3, "int8"), out_dtype="float32", axis=-1)
                parts = R.split(a, indices_or_sections=2, axis=1)
                b = parts[0]
                c = R.nn.relu(b)
                R.output(c)
            return c

    @I.ir_module
    class Expected:
        @R.function
        def main(x: R.Tensor((2, 6), "int8")):
            with R.dataflow():
                parts = R.split(x, indices_or_sections=2, axis=1)
                a = parts[0]
                b = R.dequantize(a, R.const(0.5, "float32"), R.const(3, "int8"), out_dtype="float32", axis=-1)
                c = R.nn.relu(b)
                R.output(c)
            return c

    tvm.ir.assert_structural_equal(canonicalize_qdq(Before), Expected)


def test_a_real_requantization_stays() -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((2, 6), "int8")):
            with R.dataflow():
                a = R.dequantize(x, R.const(0.5, "float32"), R.const(3, "int8"), out_dtype="float32", axis=-1)
                b = R.quantize(a, R.const(0.75, "float32"), R.const(3, "int8"), out_dtype="int8", axis=-1)
                R.output(b)
            return b

    tvm.ir.assert_structural_equal(canonicalize_qdq(Before), Before)
