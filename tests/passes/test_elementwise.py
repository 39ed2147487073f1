"""ElementwiseFunction: which float expressions are functions of one int8 tensor, and which function."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax

from edgenext_tvm.passes.elementwise import elementwise_function
from edgenext_tvm.passes.rewrite import Rewriter


def evaluated(mod: tvm.IRModule):
    """The function that main's result is of its input, evaluated on a range, or None."""
    found = {}

    class Probe(Rewriter):
        def rewrite(self, value, var):
            return None

        def finish(self, result):
            found["match"] = elementwise_function(self, result)
            return result

    Probe(mod).run()
    if found["match"] is None:
        return None
    source, function = found["match"]
    assert (source.scale, source.zero_point) == (0.5, 3)
    return function(RANGE)


RANGE = np.linspace(-4, 4, 33)
SCALAR = relax.const(2.5, "float32")


@pytest.mark.parametrize(
    "operator, expected",
    [
        (relax.op.nn.relu, np.maximum(RANGE, 0)),
        (relax.op.nn.relu6, np.clip(RANGE, 0, 6)),
        (relax.op.nn.silu, RANGE / (1 + np.exp(-RANGE))),
        (relax.op.nn.softplus, np.log1p(np.exp(RANGE))),
        (relax.op.sigmoid, 1 / (1 + np.exp(-RANGE))),
        (relax.op.tanh, np.tanh(RANGE)),
        (relax.op.exp, np.exp(RANGE)),
        (relax.op.abs, np.abs(RANGE)),
        (relax.op.negative, -RANGE),
        (relax.op.square, RANGE**2),
        (lambda x: relax.op.nn.leakyrelu(x, 0.125), np.where(RANGE < 0, 0.125 * RANGE, RANGE)),
        (lambda x: relax.op.clip(x, -1, 2), np.clip(RANGE, -1, 2)),
        (lambda x: relax.op.subtract(SCALAR, x), 2.5 - RANGE),
        (lambda x: relax.op.divide(x, SCALAR), RANGE / 2.5),
        (lambda x: relax.op.maximum(x, SCALAR), np.maximum(RANGE, 2.5)),
        (lambda x: relax.op.minimum(x, SCALAR), np.minimum(RANGE, 2.5)),
        (lambda x: relax.op.multiply(x, x), RANGE**2),
    ],
)
def test_a_function_is_evaluated_as_float64(network, operator, expected) -> None:
    actual = evaluated(network(lambda g, x: g.emit(operator(g.dequantize(x, 0.5, 3))), 4, 6))
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


def test_gelu_written_with_erf_is_gelu(network) -> None:
    def body(g, x):
        real = g.dequantize(x, 0.5, 3)
        scaled = g.emit(relax.op.divide(real, relax.const(float(np.sqrt(2)), "float32")))
        gate = g.emit(relax.op.add(g.emit(relax.op.erf(scaled)), relax.const(1.0, "float32")))
        half = g.emit(relax.op.multiply(real, relax.const(0.5, "float32")))
        return g.emit(relax.op.multiply(half, gate))

    exact = evaluated(network(lambda g, x: g.emit(relax.op.nn.gelu(g.dequantize(x, 0.5, 3))), 4, 6))
    np.testing.assert_allclose(evaluated(network(body, 4, 6)), exact, atol=1e-7)


@pytest.mark.parametrize(
    "body",
    [
        lambda g, x: g.emit(relax.op.nn.softmax(g.dequantize(x, 0.5, 3))),
        lambda g, x: g.emit(relax.op.add(g.dequantize(x, 0.5, 3), g.constant((6,)))),
        lambda g, x: g.emit(relax.op.add(g.dequantize(x, 0.5, 3), g.dequantize(x, 0.25, 3))),
        lambda g, x: g.emit(relax.op.add(g.dequantize(x, 0.5, 3), g.dequantize(g.int8((4, 6)), 0.5, 3))),
        lambda g, x: g.emit(relax.op.nn.relu(g.emit(relax.op.permute_dims(g.dequantize(x, 0.5, 3))))),
    ],
    ids=["rows", "constant per channel", "two scales", "two tensors", "movement"],
)
def test_other_expressions_are_no_function_of_one_tensor(network, body) -> None:
    assert evaluated(network(body, 4, 6)) is None
