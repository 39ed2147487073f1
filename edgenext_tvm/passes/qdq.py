"""Reading and writing the quantization parameters in ``R.quantize`` and ``R.dequantize``."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from tvm import relax
from tvm.ir import GenericConst as Constant

from edgenext_tvm.kernels.wide import ACTIVATION_DTYPES
from edgenext_tvm.passes.rewrite import Rewriter, op_name


@dataclass(frozen=True)
class Quantized:
    """An integer tensor and its per-tensor parameters: ``real = scale * (data - zero_point)``.

    dtype int16 means a wide tensor, whose values keep to 12 bits (`kernels.wide`), wherever `quantize` made it.
    """

    data: relax.Expr
    scale: float
    zero_point: int
    dtype: str = "int8"

    @property
    def is_activation(self) -> bool:
        """Whether kernels read and write tensors of that dtype: int8 or wide."""
        return self.dtype in ACTIVATION_DTYPES

    def same_parameters(self, other: Quantized) -> bool:
        return (self.scale, self.zero_point, self.dtype) == (other.scale, other.zero_point, other.dtype)

    def with_data(self, data: relax.Expr) -> Quantized:
        return replace(self, data=data)

    def dequantize(self) -> relax.Call:
        """Return the (unbound) call that turns the tensor into float32."""
        return relax.op.dequantize(
            self.data, relax.const(self.scale, "float32"), relax.const(self.zero_point, self.dtype), -1, "float32"
        )


@dataclass(frozen=True)
class Weight:
    """A constant integer tensor with one scale per element: ``real = scale * data``."""

    data: np.ndarray
    scale: np.ndarray


def quantization_of(call: relax.Call) -> Quantized:
    """Return the per-tensor parameters of a quantize or dequantize call, with its operand as data."""
    scale, zero_point = (float(a.value.numpy().reshape(-1)[0]) for a in call.args[1:3])
    return Quantized(call.args[0], scale, int(zero_point), str(call.args[2].ty.dtype))


def is_per_tensor(call: relax.Call) -> bool:
    """Return whether scale and zero point are constants of one element."""
    return all(isinstance(a, Constant) and a.value.numpy().size == 1 for a in call.args[1:3])


def quantize(data: relax.Expr, params: Quantized) -> relax.Call:
    """Return the (unbound) call that quantizes `data` with the parameters of `params`."""
    return relax.op.quantize(
        data, relax.const(params.scale, "float32"), relax.const(params.zero_point, params.dtype), -1, params.dtype
    )


def dequantized(rewriter: Rewriter, expr: relax.Expr) -> Quantized | None:
    """Return the integer tensor behind a value that is a per-tensor dequantization, else None."""
    bound = rewriter.lookup(expr)
    if op_name(bound) == "dequantize" and is_per_tensor(bound):
        return quantization_of(bound)
    return None


def weight_of(rewriter: Rewriter, expr: relax.Expr) -> Weight | None:
    """Return a symmetric int8 constant behind dequantize, reshape and permute_dims, else None."""
    constant = quantized_constant(rewriter, expr)
    return constant if constant is not None and constant.data.dtype == np.int8 else None


def constant_array(rewriter: Rewriter, expr: relax.Expr) -> np.ndarray | None:
    """Return the values of a constant, or of a symmetric int8 or int32 constant behind dequantize, else None."""
    bound = rewriter.lookup(expr)
    if isinstance(bound, Constant):
        return bound.value.numpy()
    constant = quantized_constant(rewriter, expr)
    return None if constant is None else constant.data * constant.scale


def quantized_constant(rewriter: Rewriter, expr: relax.Expr) -> Weight | None:
    """Return a symmetric integer constant of any width behind dequantize, reshape and permute_dims, else None."""
    bound = rewriter.lookup(expr)
    name = op_name(bound)
    if name == "dequantize" and isinstance(bound.args[0], Constant) and isinstance(bound.args[1], Constant):
        data, scale, zero_point = (a.value.numpy() for a in bound.args)
        if zero_point.any():
            return None
        if scale.size > 1:
            shape = [1] * data.ndim
            shape[int(bound.attrs.axis) % data.ndim] = scale.size
            scale = scale.reshape(shape)
        else:
            scale = scale.reshape(())
        return Weight(data, np.broadcast_to(scale.astype(np.float32), data.shape))
    if name in ("permute_dims", "reshape", "broadcast_to", "squeeze", "expand_dims"):
        inner = quantized_constant(rewriter, bound.args[0])
        if inner is None:
            return None
        if name == "permute_dims":
            axes = [int(a) for a in bound.attrs.axes] if bound.attrs.axes else None
            return Weight(inner.data.transpose(axes), inner.scale.transpose(axes))
        shape = [int(extent) for extent in expr.ty.shape.values]
        if name == "broadcast_to":
            return Weight(np.broadcast_to(inner.data, shape), np.broadcast_to(inner.scale, shape))
        if int(np.prod(shape)) != inner.data.size:
            return None
        return Weight(inner.data.reshape(shape), inner.scale.reshape(shape))
    return None
