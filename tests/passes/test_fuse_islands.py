"""FuseIslands: whatever no integer kernel knows is one generated kernel from int8 to int8."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax

from edgenext_tvm.passes.fuse_anchors import fuse_anchors
from edgenext_tvm.passes.fuse_islands import fuse_islands
from edgenext_tvm.passes.rewrite import bindings_of, layer_of, op_name, with_layer


def max_pool(g, x):
    pooled = relax.op.nn.max_pool2d(g.dequantize(x, 0.05, 3), (2, 2), (2, 2), layout="NHWC")
    return g.quantize(g.emit(pooled), 0.05, 3)


def softmax(g, x):
    return g.quantize(g.emit(relax.op.nn.softmax(g.dequantize(x, 0.05, 3), -1)), 1 / 256, -128)


def gated(g, x):
    """Two readers of one dequantized tensor, and a reduction."""
    real = g.dequantize(x, 0.05, 3)
    pooled = g.emit(relax.op.mean(real, [1, 2], keepdims=True))
    return g.quantize(g.emit(relax.op.multiply(real, g.emit(relax.op.sigmoid(pooled)))), 0.03, 0)


def asymmetric_weight(g, x):
    weight = g.dequantize(g.int8((8, 8)), 0.01, 3)
    return g.quantize(g.emit(relax.op.matmul(g.dequantize(x, 0.02, 5), weight)), 0.1, 0)


@pytest.mark.parametrize("body", [max_pool, softmax, gated, asymmetric_weight])
def test_float_arithmetic_between_int8_tensors_is_one_kernel(network, kinds, levels_apart, body) -> None:
    before = network(body, 1, 6, 6, 8)
    after = fuse_islands(before)
    assert kinds(after) == {"island": 1}
    assert levels_apart(before, after) <= 1


def test_every_stored_result_is_an_island_of_its_own(network, kinds, levels_apart) -> None:
    before = network(lambda g, x: softmax(g, max_pool(g, x)), 1, 6, 6, 4)
    after = fuse_islands(before)
    assert kinds(after) == {"island": 2}
    assert levels_apart(before, after) <= 1


def test_a_split_that_is_left_over_is_copied(network, kinds, levels_apart) -> None:
    def body(g, x):
        parts = g.emit(relax.op.split(x, 2, axis=1))
        return g.emit(relax.op.concat([g.emit(relax.TupleGetItem(parts, i)) for i in (1, 0)], 1))

    before = network(body, 6, 8)
    after = fuse_islands(before)
    assert set(kinds(after)) == {"island"}
    assert levels_apart(before, after) == 0


def test_movement_of_int8_is_a_kernel_and_reshapes_stay_free(network, kinds, levels_apart) -> None:
    def body(g, x):
        return g.emit(relax.op.reshape(g.emit(relax.op.permute_dims(x, [1, 0])), [2, 24]))

    before = network(body, 6, 8)
    after = fuse_islands(before)
    assert kinds(after) == {"island": 1, "reshape": 1}
    assert levels_apart(before, after) == 0


def test_a_float_result_is_an_island(network, kinds, run) -> None:
    before = network(lambda g, x: g.emit(relax.op.nn.softmax(g.dequantize(x, 0.05, 3))), 6, 8)
    after = fuse_islands(before)
    assert kinds(after) == {"island": 1}
    x = np.random.default_rng(0).integers(-128, 128, (6, 8)).astype(np.int8)
    np.testing.assert_allclose(run(after, x), run(before, x), rtol=1e-5, atol=1e-6)


def test_islands_keep_their_layer(network) -> None:
    def body(g, x):
        pooled = relax.op.nn.max_pool2d(g.dequantize(x, 0.05, 3), (2, 2), (2, 2), layout="NHWC")
        return g.emit(
            with_layer(
                relax.op.quantize(g.emit(pooled), relax.const(0.05), relax.const(3, "int8"), -1, "int8"), "stem.pool"
            )
        )

    after = fuse_islands(network(body, 1, 6, 6, 8))
    assert [layer_of(v) for _, v in bindings_of(after) if op_name(v) == "call_tir"] == ["stem.pool"]


def test_calls_of_kernels_are_left_alone(network, kinds) -> None:
    before = fuse_anchors(network(lambda g, x: g.quantize(g.linear(g.dequantize(x, 0.02, 5), 8, 8), 0.1, 0), 6, 8))
    assert kinds(fuse_islands(before)) == kinds(before) == {"dense": 1}


def test_equal_islands_share_one_function(network, kinds, levels_apart) -> None:
    def body(g, x):
        for _ in range(3):
            pooled = relax.op.nn.max_pool2d(g.dequantize(x, 0.05, 3), (3, 3), padding=(1, 1), layout="NHWC")
            x = g.quantize(g.emit(pooled), 0.05, 3)
        return x

    before = network(body, 1, 24, 24, 4)
    after = fuse_islands(before)
    assert kinds(after) == {"island": 3}
    assert len(after.functions) == 2
    assert levels_apart(before, after) <= 1


def test_an_island_saturates_a_wide_result_at_12_bits(network, kinds, run) -> None:
    def body(g, x):
        real = g.dequantize(x, 0.05, 3)
        return g.quantize(g.emit(relax.op.sigmoid(real)), 2.0**-14, -1500, "int16")

    before = network(body, 4, 8)
    after = fuse_islands(before)
    assert kinds(after) == {"island": 1}
    x = np.arange(-128, 128, 8, dtype=np.int8).reshape(4, 8)
    expected = np.clip(np.rint(2.0**14 / (1 + np.exp(-0.05 * (x.astype(float) - 3)))) - 1500, -2048, 2047)
    assert expected.max() == 2047 > expected.min()
    assert np.abs(run(after, x) - expected).max() <= 1


def test_a_movement_of_a_wide_tensor_is_an_island(network, kinds, levels_apart) -> None:
    before = network(lambda g, x: g.emit(relax.op.permute_dims(x, [1, 0])), 6, 8, dtype="int16")
    after = fuse_islands(before)
    assert kinds(after) == {"island": 1}
    assert levels_apart(before, after) == 0
