"""FuseInvertedBottlenecks: a large hidden tensor between two dense layers is never whole."""

from __future__ import annotations

import pytest
import tvm
from tvm import relax
from tvm_ffi import structural_equal

from edgenext_tvm.passes.fuse_anchors import fuse_anchors
from edgenext_tvm.passes.fuse_inverted_bottlenecks import MIN_HIDDEN_BYTES, fuse_inverted_bottlenecks
from edgenext_tvm.passes.fuse_lookups import fuse_lookups
from edgenext_tvm.passes.rewrite import Rewriter, bindings_of, layer_of, op_name, with_layer

ROWS, CI, HIDDEN = 512, 6, 128
assert ROWS * HIDDEN == MIN_HIDDEN_BYTES


def widen(g, x, hidden: int = HIDDEN):
    y = g.quantize(g.linear(g.dequantize(x, 0.02, 0), CI, hidden), 0.05, 3)
    return g.quantize(g.emit(relax.op.nn.gelu(g.dequantize(y, 0.05, 3))), 0.04, -50)


def bottleneck(g, x, hidden: int = HIDDEN):
    return g.quantize(g.linear(g.dequantize(widen(g, x, hidden), 0.04, -50), hidden, 10), 0.06, 5)


def with_residual(g, x):
    y = g.linear(g.dequantize(widen(g, x), 0.04, -50), HIDDEN, CI)
    return g.quantize(g.emit(relax.op.add(y, g.dequantize(x, 0.02, 0))), 0.06, 5)


def through_reshapes(g, x):
    hidden = g.emit(relax.op.reshape(widen(g, x), [16, 32, HIDDEN]))
    y = g.quantize(g.linear(g.dequantize(hidden, 0.04, -50), HIDDEN, 10), 0.06, 5)
    return g.emit(relax.op.reshape(y, [ROWS, 10]))


def layers(before: tvm.IRModule) -> tvm.IRModule:
    return fuse_lookups(fuse_anchors(before))


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (bottleneck, "inverted_bottleneck"),
        (with_residual, "inverted_bottleneck+residual"),
        (through_reshapes, "inverted_bottleneck"),
    ],
)
def test_two_layers_become_one_kernel_with_the_same_bits(network, kinds, levels_apart, body, kind: str) -> None:
    before = layers(network(body, ROWS, CI))
    after = fuse_inverted_bottlenecks(before)
    assert {name: count for name, count in kinds(after).items() if name != "reshape"} == {kind: 1}
    assert levels_apart(before, after) == 0


def test_a_bottleneck_of_a_wide_residual_stays_two_layers(network, kinds) -> None:
    def body(g, x):
        y = g.linear(g.dequantize(widen(g, x), 0.04, -50), HIDDEN, CI)
        return g.quantize(g.emit(relax.op.add(y, g.dequantize(x, 0.02, 0))), 0.06 / 16, 5, "int16")

    after = fuse_inverted_bottlenecks(layers(network(body, ROWS, CI)))
    assert kinds(after) == {"dense+lut": 1, "dense+residual": 1}


class _Name(Rewriter):
    """Says which module each kernel call comes from: its epilogue's name."""

    def rewrite(self, value: relax.Expr, var: relax.Var) -> relax.Expr | None:
        kernel = self.kernel_of_call(value)
        return None if kernel is None else with_layer(value, f"block.{kernel.epilogue}")


def test_the_kernel_belongs_to_the_second_layer(network) -> None:
    after = fuse_inverted_bottlenecks(_Name(layers(network(with_residual, ROWS, CI))).run())
    assert [layer_of(value) for _, value in bindings_of(after) if op_name(value) == "call_tir"] == ["block.residual"]


def twice_read(g, x):
    hidden = widen(g, x)
    first = g.quantize(g.linear(g.dequantize(hidden, 0.04, -50), HIDDEN, 10), 0.06, 5)
    second = g.quantize(g.linear(g.dequantize(hidden, 0.04, -50), HIDDEN, 10), 0.06, 5)
    return g.emit(relax.op.concat((first, second), axis=1))


def returned(g, x):
    return widen(g, x)


def three_layers(g, x):
    return g.quantize(g.emit(relax.op.nn.gelu(g.dequantize(bottleneck(g, x), 0.06, 5))), 0.04, 0)


@pytest.mark.parametrize(
    ("body", "rows"),
    [(twice_read, ROWS), (returned, ROWS), (three_layers, ROWS), (bottleneck, ROWS - 1)],
    ids=["others read the hidden tensor", "it is the result", "a table follows", "it is small"],
)
def test_what_is_left_alone(network, body, rows: int) -> None:
    before = layers(network(body, rows, CI))
    assert structural_equal(fuse_inverted_bottlenecks(before), before)
