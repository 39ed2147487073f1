"""QuantizeBeforeClamps: a layer in front of ReLU or clip is quantized at once, to the same values."""

from __future__ import annotations

import pytest
import tvm
from tvm import relax

from edgenext_tvm.passes.fuse_anchors import fuse_anchors
from edgenext_tvm.passes.fuse_lookups import fuse_lookups
from edgenext_tvm.passes.quantize_before_clamps import quantize_before_clamps


def relu(g, x):
    return g.emit(relax.op.nn.relu(x))


def relu6(g, x):
    return g.emit(relax.op.clip(x, 0, 6))


def both(g, x):
    return relu6(g, relu(g, x))


@pytest.mark.parametrize("clamp", [relu, relu6, both])
def test_the_clamp_becomes_a_table_of_its_layer(network, kinds, levels_apart, clamp) -> None:
    before = network(lambda g, x: g.quantize(clamp(g, g.linear(g.dequantize(x, 0.02, 5), 12, 20)), 0.07, -10), 6, 12)
    after = quantize_before_clamps(before)
    assert levels_apart(before, after) == 0
    fused = fuse_lookups(fuse_anchors(after))
    assert kinds(fused) == {"dense+lut": 1}
    assert levels_apart(before, fused) <= 1


def test_a_relu_that_quantization_does_itself_costs_nothing(network, kinds, levels_apart) -> None:
    before = network(lambda g, x: g.quantize(relu(g, g.linear(g.dequantize(x, 0.02, 5), 12, 20)), 0.04, -128), 6, 12)
    fused = fuse_lookups(fuse_anchors(quantize_before_clamps(before)))
    assert kinds(fused) == {"dense": 1}
    assert levels_apart(before, fused) <= 1


def test_other_functions_and_clamps_of_dequantized_tensors_are_left_alone(network) -> None:
    def body(g, x):
        y = g.quantize(relu(g, g.dequantize(x, 0.02, 5)), 0.03, -4)
        return g.quantize(g.emit(relax.op.nn.gelu(g.linear(g.dequantize(y, 0.03, -4), 12, 20))), 0.04, -10)

    before = network(body, 6, 12)
    tvm.ir.assert_structural_equal(quantize_before_clamps(before), before)


def test_a_clamp_to_a_wide_tensor_is_left_alone(network) -> None:
    def body(g, x):
        return g.quantize(relu(g, g.linear(g.dequantize(x, 0.02, 5), 12, 20)), 0.07 / 16, -10, "int16")

    before = network(body, 6, 12)
    tvm.ir.assert_structural_equal(quantize_before_clamps(before), before)
