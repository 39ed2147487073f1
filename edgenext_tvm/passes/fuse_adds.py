"""The sum of two int8 or wide (int16) tensors becomes one integer kernel.

Before::

    lv = R.add(R.dequantize(a, sa, za), R.dequantize(b, sb, zb))
    lv1 = R.quantize(lv, so, zo)

After::

    lv1 = R.call_tir(add, (a, b, ap, rs), out_ty=R.Tensor((64, 24), "int8"))

Why here: after FuseAnchors, which takes the sums that end a layer into that layer's kernel.

Leaves alone: sums whose operands differ in size (a constant is repeated to the size of the other operand).
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
import tvm
from tvm import relax
from tvm.ir import GenericConst as Constant

from edgenext_tvm.kernels.add import Add
from edgenext_tvm.kernels.qparams import add_params
from edgenext_tvm.passes.qdq import Quantized, dequantized, is_per_tensor, quantization_of
from edgenext_tvm.passes.rewrite import Rewriter, layer_of, op_name, shape_of


def fuse_adds(mod: tvm.IRModule) -> tvm.IRModule:
    """Return the module with every sum of two quantized tensors as a call of the kernel."""
    return _AddFuser(mod).run()


class _AddFuser(Rewriter):
    def rewrite(self, value: relax.Expr, var: relax.Var) -> relax.Expr | None:
        if op_name(value) != "quantize" or not is_per_tensor(value):
            return None
        target = quantization_of(value)
        total = self.lookup(target.data)
        if op_name(total) != "add":
            return None
        a, b = (dequantized(self, operand) for operand in total.args)
        if a is None or b is None or not all(tensor.is_activation for tensor in (a, b, target)):
            return None
        shape = shape_of(var)
        a, b = _repeat_constant(a, shape), _repeat_constant(b, shape)
        if shape_of(a.data) != shape or shape_of(b.data) != shape:
            return None
        self.layer = layer_of(total) or self.layer
        dtypes = (a.dtype, b.dtype, target.dtype)
        kernel = Add(t=prod(shape[:-1]), c=shape[-1], a_dtype=a.dtype, b_dtype=b.dtype, out_dtype=target.dtype)
        params = add_params(a.scale, a.zero_point, b.scale, b.zero_point, target.scale, target.zero_point, dtypes)
        rows = [self.reshape(operand.data, (kernel.t, kernel.c)) for operand in (a, b)]
        return self.reshape(self.call_kernel(kernel, [*rows, *params]), shape)


def _repeat_constant(operand: Quantized, shape: tuple[int, ...]) -> Quantized:
    if not isinstance(operand.data, Constant) or shape_of(operand.data) == shape:
        return operand
    array = np.ascontiguousarray(np.broadcast_to(operand.data.value.numpy(), shape))
    return replace(operand, data=relax.const(array))
