"""SimplifyMovement: chains that move nothing are reshapes; real movement stays."""

from __future__ import annotations

import tvm
from tvm.script import ir as I
from tvm.script import relax as R

from edgenext_tvm.passes.simplify_movement import simplify_movement


def test_permutations_that_cancel_disappear() -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((16, 40), "int8")):
            with R.dataflow():
                a = R.reshape(x, R.shape([16, 4, 10]))
                b = R.permute_dims(a, axes=[1, 2, 0])
                c = R.reshape(b, R.shape([1, 4, 10, 16]))
                d = R.permute_dims(c, axes=[0, 3, 1, 2])
                e = R.reshape(d, R.shape([1, 640]))
                R.output(e)
            return e

    @I.ir_module
    class Expected:
        @R.function
        def main(x: R.Tensor((16, 40), "int8")):
            with R.dataflow():
                e = R.reshape(x, R.shape([1, 640]))
                R.output(e)
            return e

    tvm.ir.assert_structural_equal(simplify_movement(Before), Expected)


def test_a_permutation_of_unit_axes_is_a_reshape() -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((1, 16, 1, 10), "int8")):
            with R.dataflow():
                a = R.permute_dims(x, axes=[2, 1, 3, 0])
                R.output(a)
            return a

    @I.ir_module
    class Expected:
        @R.function
        def main(x: R.Tensor((1, 16, 1, 10), "int8")):
            with R.dataflow():
                a = R.reshape(x, R.shape([1, 16, 10, 1]))
                R.output(a)
            return a

    tvm.ir.assert_structural_equal(simplify_movement(Before), Expected)


def test_a_transposition_stays() -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((16, 40), "int8")):
            with R.dataflow():
                a = R.permute_dims(x, axes=[1, 0])
                R.output(a)
            return a

    tvm.ir.assert_structural_equal(simplify_movement(Before), Before)
