"""Small quantize/dequantize networks to rewrite, and a NumPy interpreter that runs them before and after.

`network` builds a module from a function of a `Graph` and its input; `run` executes a module at any stage of the
pipeline: float operators by their NumPy definition in float64, integer kernels by their twins, generated islands by
LLVM. `kinds` counts the kernels per kind; every other operator counts under its own name.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import tvm
from numpy.lib.stride_tricks import sliding_window_view
from tvm import relax
from tvm.ir import GenericConst as Constant

from edgenext_tvm.kernels.base import kernel_of
from edgenext_tvm.kernels.wide import QRANGE, levels
from edgenext_tvm.passes.rewrite import bindings_of, op_name, remove_dead_code, shape_of, split_sections

erf = np.vectorize(math.erf, otypes=[np.float64])


class Graph:
    """Emits the operators of a quantized program; scales and zero points are per tensor."""

    def __init__(self, builder: relax.BlockBuilder, seed: int = 0) -> None:
        self.builder = builder
        self.rng = np.random.default_rng(seed)

    def emit(self, call: relax.Expr) -> relax.Var:
        return self.builder.emit(call)

    def dequantize(self, x: relax.Expr, scale: float, zero_point: int) -> relax.Var:
        zero = relax.const(zero_point, str(x.ty.dtype))
        return self.emit(relax.op.dequantize(x, relax.const(scale, "float32"), zero, -1, "float32"))

    def quantize(self, x: relax.Expr, scale: float, zero_point: int, dtype: str = "int8") -> relax.Var:
        zero = relax.const(zero_point, dtype)
        return self.emit(relax.op.quantize(x, relax.const(scale, "float32"), zero, -1, dtype))

    def constant(self, shape: tuple[int, ...], scale: float = 1.0) -> relax.Expr:
        return relax.const(self.rng.normal(0, scale, shape).astype(np.float32))

    def int8(self, shape: tuple[int, ...]) -> relax.Expr:
        return relax.const(self.rng.integers(-127, 128, shape).astype(np.int8))

    def weight(self, shape: tuple[int, ...], axis: int, scale: float = 0.01) -> relax.Var:
        """A dequantized int8 constant with one scale per output channel."""
        scales = (scale * self.rng.uniform(0.5, 1.5, shape[axis])).astype(np.float32)
        zeros = relax.const(np.zeros(shape[axis], np.int8))
        return self.emit(relax.op.dequantize(self.int8(shape), relax.const(scales), zeros, axis, "float32"))

    def linear(self, x: relax.Expr, ci: int, co: int, bias: bool = True) -> relax.Var:
        y = self.emit(relax.op.matmul(x, self.weight((ci, co), 1)))
        return self.emit(relax.op.add(y, self.constant((co,)))) if bias else y

    def conv2d(self, x: relax.Expr, shape: tuple[int, ...], groups: int = 1, bias: bool = True, **window) -> relax.Var:
        """`shape` is that of the HWIO weight."""
        y = self.emit(
            relax.op.nn.conv2d(
                x, self.weight(shape, 3), groups=groups, data_layout="NHWC", kernel_layout="HWIO", **window
            )
        )
        return self.emit(relax.op.add(y, self.constant((1, 1, 1, shape[3])))) if bias else y


@pytest.fixture(scope="session")
def network() -> Callable[..., tvm.IRModule]:
    def build(body: Callable[[Graph, relax.Var], relax.Expr], *shape: int, dtype: str = "int8") -> tvm.IRModule:
        builder = relax.BlockBuilder()
        x = relax.Var("x", relax.TensorType(shape, dtype))
        with builder.function("main", [x]):
            with builder.dataflow():
                result = builder.emit_output(body(Graph(builder), x))
            builder.emit_func_output(result)
        return remove_dead_code(builder.finalize())

    return build


@pytest.fixture(scope="session")
def kinds() -> Callable[[tvm.IRModule], Counter[str]]:
    def count(mod: tvm.IRModule) -> Counter[str]:
        found: Counter[str] = Counter()
        for _, value in bindings_of(mod):
            name = op_name(value)
            if name in ("call_tir", "call_tir_inplace"):
                kernel = kernel_of(mod[value.args[0]])
                epilogue = getattr(kernel, "epilogue", "none")
                name = "island" if kernel is None else kernel.kind + ("" if epilogue == "none" else f"+{epilogue}")
            if name:
                found[name] += 1
        return found

    return count


@pytest.fixture(scope="session")
def run() -> Callable[[tvm.IRModule, np.ndarray], np.ndarray]:
    return lambda mod, x: _Interpreter(mod)(x)


@pytest.fixture(scope="session")
def levels_apart(run: Callable[[tvm.IRModule, np.ndarray], np.ndarray]) -> Callable[..., int]:
    """How far two modules are apart at most, in levels of their int8 or wide results, on random input."""

    def compare(before: tvm.IRModule, after: tvm.IRModule, seed: int = 7) -> int:
        image = before["main"].params[0]
        low, high = QRANGE[str(image.ty.dtype)]
        x = np.random.default_rng(seed).integers(low, high + 1, shape_of(image)).astype(str(image.ty.dtype))
        expected, actual = run(before, x), run(after, x)
        assert expected.shape == actual.shape
        assert expected.dtype == actual.dtype
        assert expected.std() > 5 * levels(expected.dtype.name) / 256, "a test network must not be constant"
        ends = np.isin(expected, QRANGE[expected.dtype.name])
        assert ends.mean() < 0.7, "a test network must not be saturated"
        return int(np.abs(expected.astype(int) - actual.astype(int)).max())

    return compare


class _Interpreter:
    def __init__(self, mod: tvm.IRModule) -> None:
        self.mod = mod

    def __call__(self, x: np.ndarray) -> np.ndarray:
        self.env: dict[relax.Var, np.ndarray | list[np.ndarray]] = {self.mod["main"].params[0]: x}
        for var, value in bindings_of(self.mod):
            self.env[var] = self.evaluate(value, var)
        result = self.env[self.mod["main"].body.body]
        return result if result.dtype.name in QRANGE else result.astype(np.float32)

    def array(self, expr: relax.Expr) -> np.ndarray:
        return expr.value.numpy() if isinstance(expr, Constant) else self.env[expr]

    def evaluate(self, value: relax.Expr, var: relax.Var):
        if isinstance(value, relax.Var):
            return self.env[value]
        if isinstance(value, relax.TupleGetItem):
            results = self.env[value.tuple_value]
            return results[value.index] if isinstance(results, list) else results
        name = op_name(value)
        if name in ("call_tir", "call_tir_inplace"):
            return self.call(value, var)
        if name == "split":
            return np.split(self.array(value.args[0]), split_sections(value), int(value.attrs.axis))
        if name == "concat":
            return np.concatenate([self.array(field) for field in value.args[0].fields], int(value.attrs.axis))
        if name == "strided_slice":
            axes, begins, ends = ([int(v.value) for v in arg.fields] for arg in value.args[1:4])
            data = self.array(value.args[0])
            for axis, begin, end in zip(axes, begins, ends, strict=True):
                data = np.take(data, np.arange(data.shape[axis])[begin:end], axis)
            return data
        if name in ("reshape", "squeeze", "expand_dims", "flatten"):
            return self.array(value.args[0]).reshape(shape_of(var))
        if name == "broadcast_to":
            return np.broadcast_to(self.array(value.args[0]), shape_of(var))
        if name == "clip":
            low, high = (float(arg.value) for arg in value.args[1:3])
            return np.clip(self.array(value.args[0]), low, high)
        return OPERATORS[name](value.attrs, *(self.array(arg) for arg in value.args))

    def call(self, value: relax.Call, var: relax.Var) -> np.ndarray:
        func = self.mod[value.args[0]]
        arrays = [self.array(arg) for arg in value.args[1].fields]
        if kernel := kernel_of(func):
            return kernel.reference(*arrays)
        out = tvm.runtime.empty(shape_of(var), str(var.ty.dtype))
        tvm.compile(func.with_attr("global_symbol", "island"), "llvm")["island"](
            *(tvm.runtime.tensor(np.ascontiguousarray(a)) for a in arrays), out
        )
        return out.numpy()


def _along(array: np.ndarray, axis: int, rank: int) -> np.ndarray:
    shape = [1] * rank
    shape[axis % rank] = -1
    return array.reshape(shape) if array.size > 1 else array.reshape(())


def _quantize(attrs, x, scale, zero_point):
    rounded = np.rint(x / _along(scale, int(attrs.axis), x.ndim).astype(np.float64))
    dtype = str(attrs.out_dtype)
    info = np.iinfo(dtype)
    low, high = QRANGE.get(dtype, (info.min, info.max))
    return np.clip(rounded + _along(zero_point, int(attrs.axis), x.ndim), low, high).astype(dtype)


def _dequantize(attrs, x, scale, zero_point):
    axis = int(attrs.axis)
    return (x.astype(np.float64) - _along(zero_point, axis, x.ndim)) * _along(scale, axis, x.ndim)


def _conv2d(attrs, x, w):
    assert attrs.data_layout == "NHWC"
    top, left, bottom, right = (int(p) for p in attrs.padding)
    x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    dilation = [int(d) for d in attrs.dilation]
    reach = [(k - 1) * d + 1 for k, d in zip(w.shape[:2], dilation, strict=True)]
    stride_h, stride_w = (int(s) for s in attrs.strides)
    windows = sliding_window_view(x, reach, (1, 2))[:, ::stride_h, ::stride_w, :, :: dilation[0], :: dilation[1]]
    groups = int(attrs.groups)
    parts = zip(np.split(windows, groups, 3), np.split(w, groups, 3), strict=True)
    return np.concatenate([np.einsum("nhwcij,ijco->nhwo", part, kernel) for part, kernel in parts], 3)


def _max_pool2d(attrs, x):
    assert attrs.layout == "NHWC"
    top, left, bottom, right = (int(p) for p in attrs.padding)
    x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=-np.inf)
    stride_h, stride_w = (int(s) for s in attrs.strides)
    return sliding_window_view(x, [int(p) for p in attrs.pool_size], (1, 2))[:, ::stride_h, ::stride_w].max((-1, -2))


def _softmax(attrs, x):
    e = np.exp(x - x.max(int(attrs.axis), keepdims=True))
    return e / e.sum(int(attrs.axis), keepdims=True)


def _layer_norm(attrs, x, gamma, beta):
    axes = tuple(int(a) for a in attrs.axes)
    mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return (x - mean) / np.sqrt(variance + attrs.epsilon) * gamma + beta


def _axes(attrs) -> tuple[int, ...]:
    return tuple(int(a) for a in attrs.axis)


OPERATORS = {
    "quantize": _quantize,
    "dequantize": _dequantize,
    "nn.conv2d": _conv2d,
    "nn.max_pool2d": _max_pool2d,
    "nn.softmax": _softmax,
    "nn.layer_norm": _layer_norm,
    "nn.gelu": lambda attrs, x: 0.5 * x * (1 + erf(x / math.sqrt(2))),
    "nn.relu": lambda attrs, x: np.maximum(x, 0),
    "sigmoid": lambda attrs, x: 1 / (1 + np.exp(-x)),
    "sqrt": lambda attrs, x: np.sqrt(x),
    "matmul": lambda attrs, a, b: a.astype(np.float64) @ b,
    "add": lambda attrs, a, b: a + b,
    "subtract": lambda attrs, a, b: a - b,
    "multiply": lambda attrs, a, b: a * b,
    "divide": lambda attrs, a, b: a / b,
    "power": lambda attrs, a, b: a**b,
    "maximum": lambda attrs, a, b: np.maximum(a, b),
    "mean": lambda attrs, x: x.mean(_axes(attrs), keepdims=bool(attrs.keepdims)),
    "sum": lambda attrs, x: x.sum(_axes(attrs), keepdims=bool(attrs.keepdims)),
    "permute_dims": lambda attrs, x: x.transpose([int(a) for a in attrs.axes] if attrs.axes else None),
}
