"""FuseCrossCovarianceAttention: XCA is two integer kernels, however its movement was written."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax

from edgenext_tvm.passes.canonicalize_qdq import canonicalize_qdq
from edgenext_tvm.passes.fuse_cross_covariance_attention import fuse_cross_covariance_attention

TOKENS, HEADS, DEPTH = 9, 2, 6
CHANNELS = HEADS * DEPTH
TEMPERATURE = np.array([3.0, 5.0], np.float32).reshape(HEADS, 1, 1)


class Attention:
    """Writes XCA of x [1, T, 3C]; each flag departs from the definition in one respect."""

    def __init__(self, g, x) -> None:
        self.g = g
        self.x = g.dequantize(x, 0.02, 9)

    def reshape(self, x, shape):
        return self.g.emit(relax.op.reshape(x, shape))

    def permute(self, x, axes):
        return self.g.emit(relax.op.permute_dims(x, axes))

    def take(self, x, index: int):
        return self.g.emit(relax.op.strided_slice(x, [0], [index], [index + 1]))

    def normalize(self, x, axis: int, floor: float = 1e-12):
        g = self.g
        total = g.emit(relax.op.sum(g.emit(relax.op.multiply(x, x)), [axis], keepdims=True))
        root = g.emit(relax.op.maximum(g.emit(relax.op.sqrt(total)), relax.const(floor)))
        return g.emit(relax.op.divide(x, root))

    def attend(self, q, k, v, temperature=TEMPERATURE, norm_axis: int = 3, floor: float = 1e-12):
        """q, k, v: [1, heads, d, T]."""
        g = self.g
        q, k = self.normalize(q, norm_axis, floor), self.normalize(k, norm_axis, floor)
        logits = g.emit(relax.op.matmul(q, self.permute(k, [0, 1, 3, 2])))
        logits = g.emit(relax.op.multiply(logits, relax.const(temperature)))
        y = g.emit(relax.op.matmul(g.emit(relax.op.nn.softmax(logits, -1)), v))
        tokens = self.reshape(self.permute(y, [0, 3, 1, 2]), [1, TOKENS, CHANNELS])
        return g.quantize(tokens, 0.004, 2)

    def by_one_permutation(self):
        """[1, T, 3, heads, d] -> [3, 1, heads, d, T], as this package's model does."""
        parts = self.permute(self.reshape(self.x, [1, TOKENS, 3, HEADS, DEPTH]), [2, 0, 3, 4, 1])
        return [self.reshape(self.take(parts, i), [1, HEADS, DEPTH, TOKENS]) for i in range(3)]

    def by_transposition(self):
        """[3, 1, heads, T, d], then q.transpose(-2, -1), as in the authors' code."""
        parts = self.permute(self.reshape(self.x, [1, TOKENS, 3, HEADS, DEPTH]), [2, 0, 3, 1, 4])
        return [
            self.permute(self.reshape(self.take(parts, i), [1, HEADS, TOKENS, DEPTH]), [0, 1, 3, 2]) for i in range(3)
        ]


def ours(g, x):
    attention = Attention(g, x)
    return attention.attend(*attention.by_one_permutation())


def authors(g, x):
    attention = Attention(g, x)
    return attention.attend(*attention.by_transposition())


def without_batch_axis(g, x):
    """Matmuls on [heads, d, T]: how torch decomposes batched products."""
    attention = Attention(g, x)
    q, k, v = (attention.reshape(part, [HEADS, DEPTH, TOKENS]) for part in attention.by_transposition())
    q, k = attention.normalize(q, 2), attention.normalize(k, 2)
    logits = g.emit(relax.op.matmul(q, attention.permute(k, [0, 2, 1])))
    logits = g.emit(relax.op.multiply(relax.const(TEMPERATURE), attention.reshape(logits, [1, HEADS, DEPTH, DEPTH])))
    weights = attention.reshape(g.emit(relax.op.nn.softmax(logits, -1)), [HEADS, DEPTH, DEPTH])
    y = attention.reshape(g.emit(relax.op.matmul(weights, v)), [1, HEADS, DEPTH, TOKENS])
    return g.quantize(y, 0.004, 2)


@pytest.mark.parametrize("body", [ours, authors, without_batch_axis])
def test_attention_is_two_kernels(network, kinds, levels_apart, body) -> None:
    before = canonicalize_qdq(network(body, 1, TOKENS, 3 * CHANNELS))
    after = fuse_cross_covariance_attention(before)
    assert kinds(after)["xca_scores"] == kinds(after)["xca_apply"] == 1
    assert not set(kinds(after)) & {"matmul", "nn.softmax", "divide", "multiply", "quantize"}
    # The kernels hold the softmax in 7 bits, here of 6 weights: an error of a few of 256 levels.
    assert levels_apart(before, after) <= 4


def test_attention_without_temperature(network, kinds, levels_apart) -> None:
    def body(g, x):
        attention = Attention(g, x)
        return attention.attend(*attention.by_transposition(), temperature=np.float32(1.0))

    before = canonicalize_qdq(network(body, 1, TOKENS, 3 * CHANNELS))
    after = fuse_cross_covariance_attention(before)
    assert kinds(after)["xca_scores"] == 1
    assert levels_apart(before, after) <= 4


def q_and_k_swapped(g, x):
    attention = Attention(g, x)
    q, k, v = attention.by_transposition()
    return attention.attend(k, q, v)


def v_and_k_swapped(g, x):
    attention = Attention(g, x)
    q, k, v = attention.by_transposition()
    return attention.attend(q, v, k)


def norm_over_channels(g, x):
    attention = Attention(g, x)
    return attention.attend(*attention.by_transposition(), norm_axis=2)


def heads_inside_depth(g, x):
    attention = Attention(g, x)
    parts = attention.permute(attention.reshape(attention.x, [1, TOKENS, 3, DEPTH, HEADS]), [2, 0, 4, 3, 1])
    return attention.attend(*(attention.reshape(attention.take(parts, i), [1, HEADS, DEPTH, TOKENS]) for i in range(3)))


def temperature_per_column(g, x):
    attention = Attention(g, x)
    temperature = np.linspace(1, 3, DEPTH, dtype=np.float32).reshape(1, 1, DEPTH)
    return attention.attend(*attention.by_transposition(), temperature=temperature)


def norm_with_a_large_floor(g, x):
    attention = Attention(g, x)
    return attention.attend(*attention.by_transposition(), floor=1.0)


def norm_of_another_tensor(g, x):
    """k is divided by the norm of v."""
    attention = Attention(g, x)
    q, k, v = attention.by_transposition()
    total = g.emit(relax.op.sum(g.emit(relax.op.multiply(v, v)), [3], keepdims=True))
    k = g.emit(relax.op.divide(k, g.emit(relax.op.sqrt(total))))
    logits = g.emit(relax.op.matmul(attention.normalize(q, 3), attention.permute(k, [0, 1, 3, 2])))
    return g.quantize(g.emit(relax.op.matmul(g.emit(relax.op.nn.softmax(logits, -1)), v)), 0.004, 2)


def values_of_another_tensor(g, x):
    attention = Attention(g, x)
    q, k, _ = attention.by_transposition()
    return attention.attend(q, k, g.dequantize(g.int8((1, HEADS, DEPTH, TOKENS)), 0.02, 9))


@pytest.mark.parametrize(
    "body",
    [
        q_and_k_swapped,
        v_and_k_swapped,
        norm_over_channels,
        heads_inside_depth,
        temperature_per_column,
        norm_with_a_large_floor,
        norm_of_another_tensor,
        values_of_another_tensor,
    ],
)
def test_other_attentions_are_left_alone(network, body) -> None:
    before = canonicalize_qdq(network(body, 1, TOKENS, 3 * CHANNELS))
    tvm.ir.assert_structural_equal(fuse_cross_covariance_attention(before), before)


def test_a_temperature_per_column_is_not_taken_for_one_per_head(network) -> None:
    """With as many heads as channels per head, only the axis tells them apart."""
    side = 4

    def body(g, x):
        attention = Attention(g, x)
        parts = attention.permute(attention.reshape(attention.x, [1, TOKENS, 3, side, side]), [2, 0, 3, 4, 1])
        q, k, v = (attention.reshape(attention.take(parts, i), [1, side, side, TOKENS]) for i in range(3))
        q, k = attention.normalize(q, 3), attention.normalize(k, 3)
        logits = g.emit(relax.op.matmul(q, attention.permute(k, [0, 1, 3, 2])))
        logits = g.emit(relax.op.multiply(logits, g.constant((1, 1, 1, side))))
        y = g.emit(relax.op.matmul(g.emit(relax.op.nn.softmax(logits, -1)), v))
        return g.quantize(y, 0.004, 2)

    before = canonicalize_qdq(network(body, 1, TOKENS, 3 * side * side))
    tvm.ir.assert_structural_equal(fuse_cross_covariance_attention(before), before)
