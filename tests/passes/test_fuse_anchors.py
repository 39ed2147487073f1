"""FuseAnchors: each layer with weights is one integer kernel, with bias, requantization and residual addition."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax

from edgenext_tvm.kernels.base import kernel_of
from edgenext_tvm.passes.fuse_anchors import fuse_anchors
from edgenext_tvm.passes.rewrite import bindings_of, op_name


def kernel(mod: tvm.IRModule):
    (found,) = [kernel_of(mod[v.args[0]]) for _, v in bindings_of(mod) if op_name(v) == "call_tir"]
    return found


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_is_one_dense_kernel(network, kinds, levels_apart, bias: bool) -> None:
    def body(g, x):
        y = g.linear(g.dequantize(x, 0.02, -7), 12, 20, bias=bias)
        return g.quantize(y, 0.1, 9)

    before = network(body, 1, 6, 12)
    after = fuse_anchors(before)
    assert kinds(before) == {"dequantize": 2, "matmul": 1, "quantize": 1} | ({"add": 1} if bias else {})
    assert kinds(after) == {"reshape": 2, "dense": 1}
    assert levels_apart(before, after) <= 1


def test_the_bias_may_stand_on_either_side(network, kinds, levels_apart) -> None:
    def body(g, x):
        y = g.emit(relax.op.add(g.constant((20,)), g.linear(g.dequantize(x, 0.02, 5), 12, 20, bias=False)))
        return g.quantize(y, 0.1, 9)

    before = network(body, 6, 12)
    after = fuse_anchors(before)
    assert kinds(after) == {"dense": 1}
    assert levels_apart(before, after) <= 1


def test_an_int32_bias_is_read_in_its_own_scale(network, kinds, levels_apart) -> None:
    def body(g, x):
        y = g.linear(g.dequantize(x, 0.02, 5), 12, 20, bias=False)
        bias = relax.const(np.arange(-1000, 1000, 100).astype(np.int32))
        scales = relax.const(np.full(20, 0.003, np.float32))
        zeros = relax.const(np.zeros(20, np.int32))
        return g.quantize(
            g.emit(relax.op.add(y, g.emit(relax.op.dequantize(bias, scales, zeros, 0, "float32")))), 0.1, 0
        )

    before = network(body, 6, 12)
    after = fuse_anchors(before)
    assert kinds(after) == {"dense": 1}
    assert levels_apart(before, after) <= 1


def test_a_pointwise_convolution_is_a_dense_kernel(network, kinds, levels_apart) -> None:
    def body(g, x):
        return g.quantize(g.conv2d(g.dequantize(x, 0.02, 5), (1, 1, 8, 16)), 0.1, 0)

    before = network(body, 1, 5, 4, 8)
    after = fuse_anchors(before)
    assert kinds(after) == {"reshape": 2, "dense": 1}
    assert (kernel(after).t, kernel(after).ci, kernel(after).co) == (20, 8, 16)
    assert levels_apart(before, after) <= 1


def test_a_convolution_keeps_stride_and_padding(network, kinds, levels_apart) -> None:
    def body(g, x):
        y = g.conv2d(g.dequantize(x, 0.02, 31), (3, 2, 4, 6), strides=(2, 1), padding=(1, 0, 2, 1))
        return g.quantize(y, 0.1, 0)

    before = network(body, 1, 7, 6, 4)
    after = fuse_anchors(before)
    found = kernel(after)
    assert kinds(after) == {"conv2d": 1}
    assert (found.kh, found.kw, found.stride_h, found.stride_w) == (3, 2, 2, 1)
    assert (found.pad_top, found.pad_left, found.pad_bottom, found.pad_right) == (1, 0, 2, 1)
    assert levels_apart(before, after) <= 1


def test_a_depthwise_convolution_pads_with_its_zero_point(network, kinds, levels_apart) -> None:
    def body(g, x):
        y = g.conv2d(g.dequantize(x, 0.02, 77), (5, 5, 1, 8), groups=8, padding=(2, 2, 2, 2))
        return g.quantize(y, 0.1, -3)

    before = network(body, 1, 6, 6, 8)
    after = fuse_anchors(before)
    assert kinds(after) == {"depthwise": 1}
    assert levels_apart(before, after) <= 1


@pytest.mark.parametrize("residual_first", [True, False])
@pytest.mark.parametrize("layer", ["dense", "depthwise"])
def test_the_sum_that_ends_a_layer_joins_its_kernel(
    network, kinds, levels_apart, layer: str, residual_first: bool
) -> None:
    def body(g, x):
        real = g.dequantize(x, 0.03, 11)
        if layer == "dense":
            branch = g.conv2d(real, (1, 1, 8, 8))
        else:
            branch = g.conv2d(real, (3, 3, 1, 8), groups=8, padding=(1, 1, 1, 1))
        pair = (real, branch) if residual_first else (branch, real)
        return g.quantize(g.emit(relax.op.add(*pair)), 0.08, -9)

    before = network(body, 1, 4, 4, 8)
    after = fuse_anchors(before)
    assert kinds(after)[f"{layer}+residual"] == 1
    assert not set(kinds(after)) & {"add", "dequantize", "quantize"}
    assert levels_apart(before, after) <= 1


WIDE = [("int16", "int8", "int8"), ("int8", "int16", "int8"), ("int8", "int8", "int16"), ("int16", "int16", "int16")]


@pytest.mark.parametrize(("x_dtype", "r_dtype", "out_dtype"), WIDE)
@pytest.mark.parametrize("layer", ["dense", "depthwise", "conv2d"])
def test_any_activation_of_a_layer_may_be_wide(
    network, kinds, levels_apart, layer: str, x_dtype: str, r_dtype: str, out_dtype: str
) -> None:
    """int16 operands and results; each is made from the int8 input and has a range that fits it."""
    finer = {"int8": 1, "int16": 16}

    def body(g, x):
        real = g.dequantize(x, 0.03, 11)
        source = g.dequantize(g.quantize(real, 0.03 / finer[x_dtype], 11, x_dtype), 0.03 / finer[x_dtype], 11)
        residual = g.dequantize(g.quantize(real, 0.03 / finer[r_dtype], 11, r_dtype), 0.03 / finer[r_dtype], 11)
        shape = {"dense": (1, 1, 8, 8), "depthwise": (3, 3, 1, 8), "conv2d": (3, 3, 8, 8)}[layer]
        padding = (0, 0, 0, 0) if layer == "dense" else (1, 1, 1, 1)
        branch = g.conv2d(source, shape, groups=8 if layer == "depthwise" else 1, padding=padding)
        return g.quantize(g.emit(relax.op.add(residual, branch)), 0.09 / finer[out_dtype], -9, out_dtype)

    before = network(body, 1, 4, 4, 8)
    after = fuse_anchors(before)
    assert kinds(after)[f"{layer}+residual"] == 1
    found = [kernel_of(f) for gv, f in after.functions.items() if gv.name_hint != "main"]
    assert [(k.x_dtype, k.r_dtype, k.out_dtype) for k in found] == [(x_dtype, r_dtype, out_dtype)]
    assert "_wide" in str(after)
    assert levels_apart(before, after) <= 1


def test_a_layer_without_residual_reads_and_writes_wide_tensors(network, kinds, levels_apart) -> None:
    def body(g, x):
        return g.quantize(g.linear(g.dequantize(x, 0.02 / 16, -700), 12, 20), 0.1 / 16, 90, "int16")

    before = network(body, 6, 12, dtype="int16")
    after = fuse_anchors(before)
    assert kinds(after) == {"dense": 1}
    assert (kernel(after).x_dtype, kernel(after).out_dtype) == ("int16", "int16")
    # The bias is rounded to a step of the accumulator.
    assert levels_apart(before, after) <= 1


def test_the_last_layer_reads_a_wide_tensor(network, kinds, run) -> None:
    before = network(lambda g, x: g.linear(g.dequantize(x, 0.02 / 16, 5), 12, 10), 1, 12, dtype="int16")
    after = fuse_anchors(before)
    assert (kernel(after).x_dtype, kernel(after).out_dtype) == ("int16", "float32")
    x = np.random.default_rng(1).integers(-2048, 2048, (1, 12)).astype(np.int16)
    np.testing.assert_allclose(run(after, x), run(before, x), atol=0.02 / 16 * 0.015 + 1e-6)


def test_a_residual_may_be_seen_through_reshapes_of_the_layer(network, kinds, levels_apart) -> None:
    def body(g, x):
        tokens = g.emit(relax.op.reshape(x, [16, 8]))
        branch = g.emit(relax.op.reshape(g.linear(g.dequantize(tokens, 0.03, 11), 8, 8), [1, 4, 4, 8]))
        return g.quantize(g.emit(relax.op.add(g.dequantize(x, 0.03, 11), branch)), 0.08, -9)

    before = network(body, 1, 4, 4, 8)
    after = fuse_anchors(before)
    assert kinds(after)["dense+residual"] == 1
    assert levels_apart(before, after) <= 1


def test_a_weight_repeated_over_a_batch_is_one_dense_kernel(network, kinds, levels_apart) -> None:
    def body(g, x):
        weight = g.emit(relax.op.broadcast_to(g.weight((12, 20), 1), [3, 12, 20]))
        rows = g.emit(relax.op.matmul(g.dequantize(x, 0.02, 5), weight))
        rows = g.emit(relax.op.reshape(rows, [1, 3, 4, 20]))
        return g.quantize(g.emit(relax.op.add(rows, g.constant((20,)))), 0.1, 0)

    before = network(body, 3, 4, 12)
    after = fuse_anchors(before)
    assert kinds(after) == {"reshape": 2, "dense": 1}
    assert levels_apart(before, after) <= 1


def test_different_weights_of_a_batch_are_left_alone(network) -> None:
    def body(g, x):
        weight = g.emit(relax.op.reshape(g.weight((36, 20), 1), [3, 12, 20]))
        return g.quantize(g.emit(relax.op.matmul(g.dequantize(x, 0.02, 5), weight)), 0.1, 0)

    before = network(body, 3, 4, 12)
    tvm.ir.assert_structural_equal(fuse_anchors(before), before)


def test_the_last_layer_writes_float_logits(network, kinds, run) -> None:
    before = network(lambda g, x: g.linear(g.dequantize(x, 0.02, 5), 12, 10), 1, 12)
    after = fuse_anchors(before)
    assert kinds(after) == {"dense": 1}
    assert kernel(after).out_dtype == "float32"
    x = np.random.default_rng(1).integers(-128, 128, (1, 12)).astype(np.int8)
    # The bias is rounded to a step of the accumulator: 0.02 * 0.015 at most.
    np.testing.assert_allclose(run(after, x), run(before, x), atol=0.02 * 0.015)


def grouped(g, x):
    return g.quantize(g.conv2d(g.dequantize(x, 0.02, 5), (3, 3, 4, 8), groups=2), 0.1, 0)


def dilated(g, x):
    return g.quantize(g.conv2d(g.dequantize(x, 0.02, 5), (3, 3, 8, 8), dilation=(2, 2)), 0.1, 0)


def two_activations(g, x):
    real = g.dequantize(x, 0.02, 5)
    return g.quantize(g.emit(relax.op.matmul(real, real)), 0.1, 0)


def float_weight(g, x):
    return g.quantize(g.emit(relax.op.matmul(g.dequantize(x, 0.02, 5), g.constant((8, 8)))), 0.1, 0)


def asymmetric_weight(g, x):
    weight = g.dequantize(g.int8((8, 8)), 0.01, 3)
    return g.quantize(g.emit(relax.op.matmul(g.dequantize(x, 0.02, 5), weight)), 0.1, 0)


def scale_per_input_channel(g, x):
    return g.quantize(g.emit(relax.op.matmul(g.dequantize(x, 0.02, 5), g.weight((8, 8), 0))), 0.1, 0)


@pytest.mark.parametrize(
    "body", [grouped, dilated, two_activations, float_weight, asymmetric_weight, scale_per_input_channel]
)
def test_other_products_are_left_alone(network, body) -> None:
    before = network(body, 1, 8, 8, 8)
    tvm.ir.assert_structural_equal(fuse_anchors(before), before)
