"""Evaluate elementwise float expressions of one quantized tensor on all 256 values that it can have."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from tvm import relax
from tvm.ir import GenericConst as Constant

from edgenext_tvm.passes.qdq import Quantized, dequantized
from edgenext_tvm.passes.rewrite import Rewriter, op_name

IDENTITY_TABLE = np.arange(-128, 128).astype(np.int8)
"""The 256-entry table that returns what it is given."""

_erf = np.vectorize(math.erf, otypes=[np.float64])


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


UNARY: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "nn.gelu": lambda x: 0.5 * x * (1.0 + _erf(x / math.sqrt(2.0))),
    "nn.gelu_tanh": lambda x: 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3))),
    "nn.relu": lambda x: np.maximum(x, 0.0),
    "nn.relu6": lambda x: np.clip(x, 0.0, 6.0),
    "nn.silu": lambda x: x * _sigmoid(x),
    "nn.softplus": lambda x: np.logaddexp(0.0, x),
    "sigmoid": _sigmoid,
    "tanh": np.tanh,
    "exp": np.exp,
    "erf": _erf,
    "abs": np.abs,
    "negative": np.negative,
    "square": np.square,
    "sqrt": lambda x: np.sqrt(np.maximum(x, 0.0)),
}

BINARY: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "power": np.power,
}

Function = Callable[[np.ndarray], np.ndarray]


def elementwise_function(rewriter: Rewriter, expr: relax.Expr) -> tuple[Quantized, Function] | None:
    """Return (int8 tensor, float64 function) when `expr` is that function of that tensor, element by element.

    A wide tensor (int16) has too many values for a table: None.

    The expression may read the tensor several times (x * clip(x + 3, 0, 6) / 6) and scalar constants.
    """
    if source := dequantized(rewriter, expr):
        return None if isinstance(source.data, Constant) or source.dtype != "int8" else (source, lambda x: x)
    bound = rewriter.lookup(expr)
    name = op_name(bound)
    if name in UNARY:
        return _compose(rewriter, bound.args[0], UNARY[name])
    if name == "clip":
        low, high = (float(arg.value) for arg in bound.args[1:3])
        return _compose(rewriter, bound.args[0], lambda x: np.clip(x, low, high))
    if name == "nn.leakyrelu":
        slope = float(bound.attrs.alpha)
        return _compose(rewriter, bound.args[0], lambda x: np.where(x < 0.0, slope * x, x))
    if name in BINARY:
        return _binary(rewriter, bound, BINARY[name])
    return None


def _compose(rewriter: Rewriter, operand: relax.Expr, function: Function) -> tuple[Quantized, Function] | None:
    inner = elementwise_function(rewriter, operand)
    if inner is None:
        return None
    source, before = inner
    return source, lambda x: function(before(x))


def _binary(
    rewriter: Rewriter, call: relax.Call, function: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> tuple[Quantized, Function] | None:
    sides: list[tuple[Quantized | None, Function]] = []
    for arg in call.args:
        scalar = _scalar(rewriter.lookup(arg))
        if scalar is not None:
            sides.append((None, _constant(scalar)))
            continue
        inner = elementwise_function(rewriter, arg)
        if inner is None:
            return None
        sides.append(inner)
    (left_source, left), (right_source, right) = sides
    sources = [s for s in (left_source, right_source) if s is not None]
    if not sources or any(not s.data.same_as(sources[0].data) or not s.same_parameters(sources[0]) for s in sources):
        return None
    return sources[0], lambda x: function(left(x), right(x))


def _constant(scalar: float) -> Function:
    return lambda x: np.full_like(x, scalar)


def _scalar(expr: relax.Expr) -> float | None:
    if isinstance(expr, Constant):
        array = expr.value.numpy()
        return float(array.reshape(-1)[0]) if array.size == 1 else None
    return None
