"""Every operator reads dequantized int8 values directly and is quantized directly: data movement is done on int8.

Before::

    lv = R.dequantize(x, s, z)
    lv1 = R.reshape(lv, R.shape([64, 24]))
    lv2 = R.quantize(lv1, s, z)
    lv3 = R.dequantize(lv2, s, z)

After::

    lv1 = R.reshape(x, R.shape([64, 24]))
    lv3 = R.dequantize(lv1, s, z)

Why here: after ConvertLayout, so that what is left of permutations and reshapes no longer stands between an
operator and its quantization parameters. PT2E puts a quantize/dequantize pair on both sides of a movement.

Leaves alone: a requantization (different parameters on both sides), unless it stands behind a concatenation,
where each part is requantized on its own.
"""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax
from tvm.ir import GenericConst as Constant

from edgenext_tvm.passes.qdq import Quantized, dequantized, is_per_tensor, quantization_of, quantize
from edgenext_tvm.passes.rewrite import Rewriter, op_name, shape_of

MOVEMENT = ("reshape", "permute_dims", "strided_slice")
SIZE_PRESERVING = ("squeeze", "expand_dims", "flatten", "broadcast_to")


def canonicalize_qdq(mod: tvm.IRModule) -> tvm.IRModule:
    """Return the module with movement on int8 tensors and without needless quantize/dequantize pairs."""
    return _Canonicalizer(mod).run()


class _Canonicalizer(Rewriter):
    def __init__(self, mod: tvm.IRModule) -> None:
        super().__init__(mod)
        self.split_source: dict[relax.Var, Quantized] = {}

    def rewrite(self, value: relax.Expr, var: relax.Var) -> relax.Expr | None:
        name = op_name(value)
        if name in SIZE_PRESERVING and int(np.prod(shape_of(var))) == int(np.prod(shape_of(value.args[0]))):
            value = relax.op.reshape(value.args[0], relax.ShapeExpr(list(shape_of(var))))
            name = "reshape"
        if name in MOVEMENT:
            return self.move(value, shape_of(var))
        if name == "split" and (source := dequantized(self, value.args[0])):
            split = self.emit(relax.Call(value.op, [source.data], value.attrs, value.ty_args))
            self.split_source[split] = source
            return split
        if isinstance(value, relax.TupleGetItem) and value.tuple_value in self.split_source:
            return self.split_source[value.tuple_value].with_data(self.emit(value)).dequantize()
        if name == "quantize" and is_per_tensor(value):
            return self.quantize(value.args[0], quantization_of(value))
        return None

    def move(self, value: relax.Call, shape: tuple[int, ...]) -> relax.Expr:
        """Return a movement operator applied to int8 data (then dequantized), or carried out on a constant."""
        data = value.args[0]
        if op_name(value) == "reshape" and op_name(self.lookup(data)) == "reshape":
            data = self.lookup(data).args[0]
        if op_name(value) == "reshape" and shape_of(data) == shape:
            return data
        moved = relax.Call(value.op, [data, *value.args[1:]], value.attrs, value.ty_args)
        if isinstance(data, Constant):
            return _move_constant(moved, data, shape)
        source = dequantized(self, data)
        if source is None:
            return moved
        if isinstance(source.data, Constant):
            return source.with_data(_move_constant(moved, source.data, shape)).dequantize()
        inner = relax.Call(value.op, [source.data, *value.args[1:]], value.attrs, value.ty_args)
        return source.with_data(self.emit(self.move(inner, shape))).dequantize()

    def quantize(self, data: relax.Expr, params: Quantized) -> relax.Expr:
        """Return `data` quantized with `params`, the quantization moved in front of data movement."""
        bound = self.lookup(data)
        source = dequantized(self, data)
        if source and source.same_parameters(params):
            return source.data
        if op_name(bound) in ("reshape", "permute_dims") and not isinstance(bound.args[0], Constant):
            moved = self.emit(self.quantize(bound.args[0], params))
            return relax.Call(bound.op, [moved, *bound.args[1:]], bound.attrs, bound.ty_args)
        if op_name(bound) == "concat":
            parts = [self.emit(self.quantize(field, params)) for field in bound.args[0].fields]
            return relax.op.concat(parts, int(bound.attrs.axis))
        return quantize(data, params)


def _move_constant(call: relax.Call, constant: Constant, shape: tuple[int, ...]) -> relax.Expr:
    """Return the constant a movement operator makes of a constant; strided slices are left to run time."""
    array = constant.value.numpy()
    if op_name(call) == "reshape":
        return relax.const(array.reshape(shape))
    if op_name(call) == "permute_dims":
        axes = [int(a) for a in call.attrs.axes] if call.attrs.axes else None
        return relax.const(np.ascontiguousarray(array.transpose(axes)))
    return call
