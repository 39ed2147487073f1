"""FuseLookups: elementwise functions of one int8 tensor are exact tables, merged into the kernel before them."""

from __future__ import annotations

import pytest
import tvm
from tvm import relax

from edgenext_tvm.passes.fuse_anchors import fuse_anchors
from edgenext_tvm.passes.fuse_lookups import fuse_lookups


def gelu(g, x):
    return g.emit(relax.op.nn.gelu(x))


def hardswish(g, x):
    gate = g.emit(relax.op.clip(g.emit(relax.op.add(x, relax.const(3.0))), 0, 6))
    return g.emit(relax.op.divide(g.emit(relax.op.multiply(x, gate)), relax.const(6.0)))


def relu6(g, x):
    return g.emit(relax.op.clip(x, 0, 6))


def swish(g, x):
    return g.emit(relax.op.multiply(g.emit(relax.op.sigmoid(x)), x))


def square(g, x):
    return g.emit(relax.op.power(x, relax.const(2.0)))


FUNCTIONS = [gelu, hardswish, relu6, swish, square]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_is_a_table_with_the_bits_of_float64(network, kinds, levels_apart, function) -> None:
    before = network(lambda g, x: g.quantize(function(g, g.dequantize(x, 0.05, 20)), 0.06, -100), 3, 100, 5)
    after = fuse_lookups(before)
    assert kinds(after) == {"reshape": 2, "lut": 1}
    # float32 scales in float64 arithmetic on both sides: even ties agree.
    assert levels_apart(before, after) == 0


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_table_joins_the_layer_before_it(network, kinds, levels_apart, function) -> None:
    def body(g, x):
        y = g.quantize(g.linear(g.dequantize(x, 0.02, 0), 12, 20), 0.05, 3)
        y = g.emit(relax.op.reshape(y, [3, 2, 20]))
        return g.quantize(function(g, g.dequantize(y, 0.05, 3)), 0.04, -50)

    before = network(body, 6, 12)
    after = fuse_lookups(fuse_anchors(before))
    assert kinds(after) == {"dense+lut": 1, "reshape": 1}
    assert levels_apart(fuse_anchors(before), after) == 0


def test_a_requantization_is_a_table(network, kinds, levels_apart) -> None:
    before = network(lambda g, x: g.quantize(g.dequantize(x, 0.05, 20), 0.07, -10), 30, 5)
    after = fuse_lookups(before)
    assert kinds(after) == {"lut": 1}
    assert levels_apart(before, after) == 0


def two_tables(g, y):
    return g.quantize(gelu(g, g.dequantize(y, 0.05, 3)), 0.04, 0), g.quantize(
        swish(g, g.dequantize(y, 0.05, 3)), 0.04, 0
    )


def table_and_layer(g, y):
    real = g.dequantize(y, 0.05, 3)
    return g.quantize(gelu(g, real), 0.04, 0), g.quantize(g.linear(real, 20, 20), 0.04, 0)


@pytest.mark.parametrize("readers", [two_tables, table_and_layer])
def test_a_layer_whose_result_others_read_stays_a_kernel_of_its_own(network, kinds, levels_apart, readers) -> None:
    def body(g, x):
        y = g.quantize(g.linear(g.dequantize(x, 0.02, 0), 12, 20), 0.05, 3)
        return g.emit(relax.op.concat(readers(g, y), 0))

    before = network(body, 6, 12)
    after = fuse_lookups(fuse_anchors(before))
    assert kinds(after)["dense"] == kinds(fuse_anchors(before))["dense"]
    assert kinds(after)["dense+lut"] == 0
    assert kinds(after)["lut"] >= 1
    assert levels_apart(before, after) <= 1


def test_a_residual_kernel_takes_no_table(network, kinds, levels_apart) -> None:
    def body(g, x):
        real = g.dequantize(x, 0.02, 0)
        y = g.quantize(g.emit(relax.op.add(real, g.linear(real, 12, 12))), 0.05, 3)
        return g.quantize(gelu(g, g.dequantize(y, 0.05, 3)), 0.04, 0)

    before = network(body, 6, 12)
    after = fuse_lookups(fuse_anchors(before))
    assert kinds(after) == {"dense+residual": 1, "lut": 1}
    assert levels_apart(before, after) <= 1


def test_a_table_that_changes_nothing_is_dropped(network, kinds, levels_apart) -> None:
    def body(g, x):
        y = g.quantize(g.linear(g.dequantize(x, 0.02, 0), 12, 20), 0.05, -128)
        return g.quantize(g.emit(relax.op.nn.relu(g.dequantize(y, 0.05, -128))), 0.05, -128)

    before = network(body, 6, 12)
    after = fuse_lookups(fuse_anchors(before))
    assert kinds(after) == {"dense": 1}
    assert levels_apart(before, after) <= 1


def test_functions_of_two_tensors_and_of_whole_rows_are_left_alone(network) -> None:
    def body(g, x):
        a, b = g.dequantize(x, 0.05, 3), g.dequantize(g.int8((4, 4)), 0.05, 3)
        product = g.quantize(g.emit(relax.op.multiply(a, b)), 0.04, 0)
        return g.quantize(g.emit(relax.op.nn.softmax(g.dequantize(product, 0.04, 0))), 0.01, 0)

    before = network(body, 4, 4)
    tvm.ir.assert_structural_equal(fuse_lookups(before), before)


def test_tables_in_a_row_are_one_table(network, kinds, levels_apart) -> None:
    def body(g, x):
        y = g.quantize(gelu(g, g.dequantize(x, 0.05, 3)), 0.04, -5)
        return g.quantize(g.dequantize(y, 0.04, -5), 0.03, -120)

    before = network(body, 60, 12)
    after = fuse_lookups(before)
    assert kinds(after) == {"lut": 1}
    assert levels_apart(before, after) == 0


@pytest.mark.parametrize(("x_dtype", "out_dtype"), [("int8", "int16"), ("int16", "int8"), ("int16", "int16")])
def test_a_requantization_with_a_wide_tensor_is_one_kernel(network, kinds, levels_apart, x_dtype, out_dtype) -> None:
    s_in, s_out = (0.03 / 16 if x_dtype == "int16" else 0.03), (0.04 / 16 if out_dtype == "int16" else 0.04)
    before = network(lambda g, x: g.quantize(g.dequantize(x, s_in, 7), s_out, -9, out_dtype), 4, 6, dtype=x_dtype)
    after = fuse_lookups(before)
    assert kinds(after) == {"rescale": 1}
    assert levels_apart(before, after) <= 1


def test_a_function_of_or_to_a_wide_tensor_is_left_alone(network) -> None:
    def to_wide(g, x):
        return g.quantize(g.emit(relax.op.nn.gelu(g.dequantize(x, 0.05, 3))), 0.05 / 16, 3, "int16")

    def of_wide(g, x):
        return g.quantize(g.emit(relax.op.nn.gelu(g.dequantize(x, 0.05 / 16, 3))), 0.05, 3)

    for body, dtype in ((to_wide, "int8"), (of_wide, "int16")):
        before = network(body, 4, 6, dtype=dtype)
        tvm.ir.assert_structural_equal(fuse_lookups(before), before)
