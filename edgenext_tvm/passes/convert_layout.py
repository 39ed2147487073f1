"""Channels-last throughout: no permutation is left between convolutions and pointwise layers.

Before::

    lv = R.nn.conv2d(x, w, data_layout="NCHW", kernel_layout="OIHW")
    lv1 = R.quantize(lv, s, z)
    lv2 = R.permute_dims(lv1, axes=[0, 2, 3, 1])

After::

    lv = R.nn.conv2d(x_nhwc, w_hwio, data_layout="NHWC", kernel_layout="HWIO")
    lv2 = R.quantize(lv, s, z)

Why here: first of all passes, on the imported program; every later pass may assume NHWC. A four-dimensional
image input becomes an NHWC input of the same name.

Leaves alone: operators that are not elementwise, splits, concatenations, means or 2-D convolutions; where
such an operator reads a permuted value, the permutation is emitted in front of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tvm
from tvm import relax
from tvm.ir import GenericConst as Constant

from edgenext_tvm.passes.rewrite import (
    bindings_of,
    layer_of,
    op_name,
    remove_dead_code,
    shape_of,
    split_sections,
    with_layer,
    without_main,
)

TO_NHWC = (0, 2, 3, 1)
TO_NCHW = (0, 3, 1, 2)
IDENTITY = (0, 1, 2, 3)

ELEMENTWISE = {
    "add", "subtract", "multiply", "divide", "maximum", "minimum", "power", "quantize", "dequantize", "clip",
    "nn.gelu", "nn.gelu_tanh", "nn.relu", "nn.silu", "nn.leakyrelu", "nn.softplus", "sigmoid", "tanh", "exp", "erf",
    "abs", "negative", "sqrt", "rsqrt", "square", "astype",
}  # fmt: skip


def convert_layout(mod: tvm.IRModule) -> tvm.IRModule:
    """Return the module computed in NHWC; the image input (N,C,H,W) becomes (N,H,W,C)."""
    return _LayoutConverter(mod).run()


class _Permuted:
    """A value that equals ``permute_dims(base, axes)`` and is materialised only where somebody insists."""

    def __init__(self, base: relax.Expr, axes: tuple[int, ...]) -> None:
        self.base = base
        self.axes = axes


class _LayoutConverter:
    def __init__(self, mod: tvm.IRModule) -> None:
        self.mod = mod
        self.builder = relax.BlockBuilder(without_main(mod))
        self.env: dict[relax.Var, relax.Expr | _Permuted] = {}
        self.value: dict[relax.Var, relax.Expr] = {}

    def run(self) -> tvm.IRModule:
        main = self.mod["main"]
        params = []
        for param in main.params:
            if len(shape_of(param)) == 4:
                shape = [shape_of(param)[axis] for axis in TO_NHWC]
                params.append(relax.Var(param.name, relax.TensorType(shape, param.ty.dtype)))
                self.env[param] = _Permuted(params[-1], TO_NCHW)
            else:
                params.append(param)
        with self.builder.function("main", params, attrs=dict(main.attrs) if main.attrs else None):
            with self.builder.dataflow():
                for var, value in bindings_of(self.mod):
                    self.layer = layer_of(value)
                    self.env[var] = self.convert(value)
                result = self.builder.emit_output(self.plain(main.body.body))
            self.builder.emit_func_output(result)
        return remove_dead_code(self.builder.finalize())

    def convert(self, value: relax.Expr) -> relax.Expr | _Permuted:
        name = op_name(value)
        if name == "permute_dims":
            return self.permute_dims(value)
        if name == "nn.conv2d" and value.attrs.data_layout == "NCHW" and value.attrs.kernel_layout == "OIHW":
            return self.conv2d(value)
        if name in ELEMENTWISE:
            return self.elementwise(value)
        if name == "concat":
            return self.concat(value)
        if name == "nn.adaptive_avg_pool2d" and [int(s) for s in value.attrs.output_size] == [1, 1]:
            return self.global_mean(value)
        if name in ("nn.max_pool2d", "nn.avg_pool2d") and value.attrs.layout == "NCHW":
            return self.pool2d(value)
        if name in ("mean", "split", "strided_slice") or isinstance(value, relax.TupleGetItem):
            return self.along_axes(value)
        return self.emit(self.substitute(value))

    def emit(self, expr: relax.Expr) -> relax.Expr:
        if isinstance(expr, relax.Var | Constant):
            return expr
        var = self.builder.emit(with_layer(expr, self.layer))
        self.value[var] = expr
        return var

    def current(self, expr: relax.Expr) -> relax.Expr | _Permuted:
        return self.env.get(expr, expr) if isinstance(expr, relax.Var) else expr

    def plain(self, expr: relax.Expr) -> relax.Expr:
        """Return the value itself, with a pending permutation made real."""
        return self.with_axes(expr, IDENTITY)

    def with_axes(self, expr: relax.Expr, axes: tuple[int, ...]) -> relax.Expr:
        """Return b such that ``permute_dims(b, axes)`` is the value."""
        value = self.current(expr)
        base, have = (value.base, value.axes) if isinstance(value, _Permuted) else (value, IDENTITY)
        if have == axes:
            return base
        inverse = np.argsort(axes)
        return self.transpose(base, [have[axis] for axis in inverse])

    def transpose(self, base: relax.Expr, axes: Sequence[int]) -> relax.Expr:
        """Emit a permutation; of constants and of dequantized constants it is carried out now."""
        axes = [int(axis) for axis in axes]
        if isinstance(base, Constant):
            return relax.const(np.ascontiguousarray(base.value.numpy().transpose(axes)))
        inner = self.value.get(base) if isinstance(base, relax.Var) else None
        if inner is not None and op_name(inner) == "dequantize" and isinstance(inner.args[0], Constant):
            data = self.transpose(inner.args[0], axes)
            axis = inner.attrs.axis
            new_axis = axes.index(axis) if axis >= 0 else axis
            return self.emit(relax.op.dequantize(data, inner.args[1], inner.args[2], new_axis, inner.attrs.out_dtype))
        return self.emit(relax.op.permute_dims(base, axes))

    def substitute(self, expr: relax.Expr) -> relax.Expr:
        if isinstance(expr, relax.Var):
            return self.plain(expr)
        if isinstance(expr, relax.Tuple):
            return relax.Tuple([self.substitute(field) for field in expr.fields])
        if isinstance(expr, relax.TupleGetItem):
            return relax.TupleGetItem(self.substitute(expr.tuple_value), expr.index)
        if isinstance(expr, relax.Call):
            return relax.Call(expr.op, [self.substitute(a) for a in expr.args], expr.attrs, expr.ty_args, expr.span)
        return expr

    def permute_dims(self, value: relax.Call) -> relax.Expr | _Permuted:
        source = self.current(value.args[0])
        rank = len(shape_of(value.args[0]))
        axes = [int(a) % rank for a in value.attrs.axes] if value.attrs.axes else list(reversed(range(rank)))
        if rank != 4:
            return self.transpose(self.plain(value.args[0]), axes)
        base, have = (source.base, source.axes) if isinstance(source, _Permuted) else (source, IDENTITY)
        combined = tuple(have[axis] for axis in axes)
        return base if combined == IDENTITY else _Permuted(base, combined)

    def conv2d(self, value: relax.Call) -> _Permuted:
        attrs = value.attrs
        data = self.with_axes(value.args[0], TO_NCHW)
        weight = self.transpose(self.plain(value.args[1]), (2, 3, 1, 0))
        call = relax.op.nn.conv2d(
            data, weight, strides=list(attrs.strides), padding=list(attrs.padding), dilation=list(attrs.dilation),
            groups=attrs.groups, data_layout="NHWC", kernel_layout="HWIO", out_dtype=attrs.out_dtype,
        )  # fmt: skip
        return _Permuted(self.emit(call), TO_NCHW)

    def global_mean(self, value: relax.Call) -> _Permuted:
        data = self.with_axes(value.args[0], TO_NCHW)
        return _Permuted(self.emit(relax.op.mean(data, [1, 2], keepdims=True)), TO_NCHW)

    def pool2d(self, value: relax.Call) -> _Permuted:
        attrs = value.attrs
        pool = relax.op.nn.max_pool2d if op_name(value) == "nn.max_pool2d" else relax.op.nn.avg_pool2d
        call = pool(
            self.with_axes(value.args[0], TO_NCHW), pool_size=list(attrs.pool_size), strides=list(attrs.strides),
            padding=list(attrs.padding), dilation=list(attrs.dilation), ceil_mode=attrs.ceil_mode,
            count_include_pad=attrs.count_include_pad, layout="NHWC",
        )  # fmt: skip
        return _Permuted(self.emit(call), TO_NCHW)

    def elementwise(self, value: relax.Call) -> relax.Expr | _Permuted:
        tensors = value.args[:1] if op_name(value) in ("quantize", "dequantize", "clip") else value.args
        pending = [v for v in map(self.current, tensors) if isinstance(v, _Permuted)]
        if not pending:
            return self.emit(self.substitute(value))
        axes = pending[0].axes
        args = [self.aligned(arg, axes) for arg in tensors] + [*value.args[len(tensors) :]]
        call = relax.Call(value.op, args, value.attrs, value.ty_args)
        if op_name(value) in ("quantize", "dequantize") and value.attrs.axis >= 0:
            function = relax.op.quantize if op_name(value) == "quantize" else relax.op.dequantize
            call = function(*args, axes[value.attrs.axis], value.attrs.out_dtype)
        return _Permuted(self.emit(call), axes)

    def aligned(self, arg: relax.Expr, axes: tuple[int, ...]) -> relax.Expr:
        rank = len(shape_of(arg))
        if rank == 4:
            return self.with_axes(arg, axes)
        if rank == 0:
            return self.plain(arg)
        expanded = self.emit(relax.op.reshape(self.plain(arg), [1] * (4 - rank) + list(shape_of(arg))))
        return self.transpose(expanded, np.argsort(axes).tolist())

    def concat(self, value: relax.Call) -> relax.Expr | _Permuted:
        fields = list(value.args[0].fields)
        pending = [v for v in map(self.current, fields) if isinstance(v, _Permuted)]
        if not pending:
            return self.emit(self.substitute(value))
        axes = pending[0].axes
        parts = [self.with_axes(field, axes) for field in fields]
        axis = axes[int(value.attrs.axis) % 4]
        return _Permuted(self.emit(relax.op.concat(parts, axis)), axes)

    def along_axes(self, value: relax.Expr) -> relax.Expr | _Permuted:
        if isinstance(value, relax.TupleGetItem):
            source = self.current(value.tuple_value)
            if isinstance(source, _Permuted):
                return _Permuted(self.emit(relax.TupleGetItem(source.base, value.index)), source.axes)
            return self.emit(self.substitute(value))
        source = self.current(value.args[0])
        if not isinstance(source, _Permuted):
            return self.emit(self.substitute(value))
        axes = source.axes
        if op_name(value) == "split":
            sections = split_sections(value)
            return _Permuted(self.emit(relax.op.split(source.base, sections, axes[int(value.attrs.axis) % 4])), axes)
        if op_name(value) == "mean":
            reduced = [axes[int(a) % 4] for a in value.attrs.axis]
            kept = [axis for axis in axes if axis not in reduced]
            result = self.emit(relax.op.mean(source.base, reduced, value.attrs.keepdims))
            if value.attrs.keepdims:
                return _Permuted(result, axes)
            order = [sorted(kept).index(axis) for axis in kept]
            return result if order == sorted(order) else self.transpose(result, order)
        moved = [axes[int(axis.value) % 4] for axis in value.args[1].fields]
        return _Permuted(
            self.emit(
                relax.op.strided_slice(source.base, moved, *value.args[2:5], assume_inbound=value.attrs.assume_inbound)
            ),
            axes,
        )
