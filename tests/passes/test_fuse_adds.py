"""FuseAdds: the sum of two int8 tensors is one integer kernel."""

from __future__ import annotations

import pytest
import tvm
from tvm import relax

from edgenext_tvm.kernels.base import kernel_of
from edgenext_tvm.passes.fuse_adds import fuse_adds


def test_a_sum_is_one_kernel(network, kinds, levels_apart) -> None:
    def body(g, x):
        moved = g.emit(relax.op.permute_dims(x, [1, 0]))
        total = g.emit(relax.op.add(g.dequantize(x, 0.03, 11), g.dequantize(moved, 0.07, -40)))
        return g.quantize(total, 0.09, 3)

    before = network(body, 12, 12)
    after = fuse_adds(before)
    assert kinds(after) == {"permute_dims": 1, "add": 1}
    assert levels_apart(before, after) <= 1


@pytest.mark.parametrize(
    "dtypes", [("int16", "int8", "int8"), ("int8", "int16", "int16"), ("int16", "int16", "int16")], ids="-".join
)
def test_a_sum_of_wide_tensors_is_one_kernel(network, kinds, levels_apart, dtypes: tuple[str, str, str]) -> None:
    finer = [16 if dtype == "int16" else 1 for dtype in dtypes]

    def body(g, x):
        real = g.dequantize(x, 0.03, 11)
        a = g.dequantize(g.quantize(real, 0.03 / finer[0], 11, dtypes[0]), 0.03 / finer[0], 11)
        b = g.dequantize(g.quantize(real, 0.05 / finer[1], -40, dtypes[1]), 0.05 / finer[1], -40)
        return g.quantize(g.emit(relax.op.add(a, b)), 0.06 / finer[2], 3, dtypes[2])

    before = network(body, 12, 12)
    after = fuse_adds(before)
    assert kinds(after)["add"] == 1
    (kernel,) = [kernel_of(f) for gv, f in after.functions.items() if gv.name_hint != "main"]
    assert (kernel.a_dtype, kernel.b_dtype, kernel.out_dtype) == dtypes
    assert levels_apart(before, after) <= 1


def test_a_tensor_is_added_to_itself(network, kinds, levels_apart) -> None:
    def body(g, x):
        real = g.dequantize(x, 0.03, 11)
        return g.quantize(g.emit(relax.op.add(real, real)), 0.09, 3)

    before = network(body, 12, 12)
    after = fuse_adds(before)
    assert kinds(after) == {"add": 1}
    assert levels_apart(before, after) <= 1


def test_a_constant_is_repeated_to_the_size_of_the_other_operand(network, kinds, levels_apart) -> None:
    def body(g, x):
        position = g.dequantize(g.int8((1, 1, 12)), 0.02, 7)
        return g.quantize(g.emit(relax.op.add(g.dequantize(x, 0.03, 11), position)), 0.06, 3)

    before = network(body, 1, 5, 12)
    after = fuse_adds(before)
    assert kinds(after) == {"reshape": 2, "add": 1}
    assert levels_apart(before, after) <= 1


def test_a_broadcast_of_an_activation_is_left_alone(network) -> None:
    def body(g, x):
        row = g.emit(relax.op.strided_slice(x, [0], [0], [1]))
        return g.quantize(g.emit(relax.op.add(g.dequantize(x, 0.03, 11), g.dequantize(row, 0.03, 11))), 0.06, 3)

    before = network(body, 5, 12)
    tvm.ir.assert_structural_equal(fuse_adds(before), before)


def test_a_sum_with_a_float_constant_is_left_alone(network) -> None:
    def body(g, x):
        return g.quantize(g.emit(relax.op.add(g.dequantize(x, 0.03, 11), g.constant((12,)))), 0.06, 3)

    before = network(body, 5, 12)
    tvm.ir.assert_structural_equal(fuse_adds(before), before)
