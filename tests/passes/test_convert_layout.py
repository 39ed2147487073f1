"""ConvertLayout: NHWC throughout, and permutations only where the order of elements really changes."""

from __future__ import annotations

import tvm
from tvm.script import ir as I
from tvm.script import relax as R

from edgenext_tvm.passes.convert_layout import convert_layout
from edgenext_tvm.passes.rewrite import bindings_of, op_name


def ops(mod: tvm.IRModule) -> list[str]:
    return [op_name(value) for _, value in bindings_of(mod)]


def test_a_convolution_between_permutations_becomes_nhwc_without_permutations() -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((1, 4, 6, 6), "float32")):
            with R.dataflow():
                a = R.permute_dims(x, axes=[0, 2, 3, 1])
                b = R.nn.relu(a)
                c = R.permute_dims(b, axes=[0, 3, 1, 2])
                d = R.add(c, x)
                e = R.permute_dims(d, axes=[0, 2, 3, 1])
                R.output(e)
            return e

    @I.ir_module
    class Expected:
        @R.function
        def main(x: R.Tensor((1, 6, 6, 4), "float32")):
            with R.dataflow():
                b = R.nn.relu(x)
                e = R.add(b, x)
                R.output(e)
            return e

    tvm.ir.assert_structural_equal(convert_layout(Before), Expected)


def test_split_concat_and_mean_follow_the_layout() -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((1, 6, 4, 4), "float32")):
            with R.dataflow():
                parts = R.split(x, indices_or_sections=[2], axis=1)
                first = parts[0]
                second = parts[1]
                joined = R.concat((second, first), axis=1)
                pooled = R.mean(joined, axis=[2, 3], keepdims=False)
                R.output(pooled)
            return pooled

    @I.ir_module
    class Expected:
        @R.function
        def main(x: R.Tensor((1, 4, 4, 6), "float32")):
            with R.dataflow():
                parts = R.split(x, indices_or_sections=[2], axis=3)
                first = parts[0]
                second = parts[1]
                joined = R.concat((second, first), axis=3)
                pooled = R.mean(joined, axis=[1, 2], keepdims=False)
                R.output(pooled)
            return pooled

    tvm.ir.assert_structural_equal(convert_layout(Before), Expected)


def test_a_reader_that_needs_nchw_gets_a_permutation() -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((1, 6, 4, 4), "float32")):
            with R.dataflow():
                flat = R.reshape(x, R.shape([1, 96]))
                R.output(flat)
            return flat

    assert ops(convert_layout(Before)) == ["permute_dims", "reshape"]


def test_a_program_without_images_is_unchanged() -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((3, 5), "float32")):
            with R.dataflow():
                y = R.nn.relu(x)
                z = R.permute_dims(y, axes=[1, 0])
                R.output(z)
            return z

    tvm.ir.assert_structural_equal(convert_layout(Before), Before)


def test_a_split_into_equal_parts_follows_the_layout() -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((1, 6, 4, 4), "float32")):
            with R.dataflow():
                parts = R.split(x, indices_or_sections=2, axis=1)
                first = parts[0]
                moved = R.permute_dims(first, axes=[0, 2, 3, 1])
                R.output(moved)
            return moved

    @I.ir_module
    class Expected:
        @R.function
        def main(x: R.Tensor((1, 4, 4, 6), "float32")):
            with R.dataflow():
                parts = R.split(x, indices_or_sections=2, axis=3)
                first = parts[0]
                R.output(first)
            return first

    tvm.ir.assert_structural_equal(convert_layout(Before), Expected)


def test_pooling_follows_the_layout() -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((1, 6, 4, 4), "float32")):
            with R.dataflow():
                a = R.nn.max_pool2d(x, pool_size=[2, 2], strides=[2, 2])
                b = R.nn.adaptive_avg_pool2d(a, output_size=[1, 1])
                c = R.permute_dims(b, axes=[0, 2, 3, 1])
                R.output(c)
            return c

    @I.ir_module
    class Expected:
        @R.function
        def main(x: R.Tensor((1, 4, 4, 6), "float32")):
            with R.dataflow():
                a = R.nn.max_pool2d(x, pool_size=[2, 2], strides=[2, 2], layout="NHWC")
                c = R.mean(a, axis=[1, 2], keepdims=True)
                R.output(c)
            return c

    tvm.ir.assert_structural_equal(convert_layout(Before), Expected)
