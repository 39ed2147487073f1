"""Recognise the operators with weights: a convolution or matrix product of an activation with an int8 constant."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import numpy as np
from tvm import relax

from edgenext_tvm.kernels.conv2d import Conv2d
from edgenext_tvm.kernels.dense import Dense
from edgenext_tvm.kernels.depthwise import Depthwise
from edgenext_tvm.passes.qdq import Quantized, Weight, constant_array, dequantized, weight_of
from edgenext_tvm.passes.rewrite import Rewriter, layer_of, op_name, shape_of


@dataclass(frozen=True)
class Anchor:
    """A matched layer: the kernel that computes it, its operands and the shape of its result in the graph.

    `weight.data` has the kernel's layout with the output channels last; `bias` is float32[CO].
    """

    kernel: Conv2d | Dense | Depthwise
    source: Quantized
    weight: Weight
    bias: np.ndarray
    shape: tuple[int, ...]
    layer: str

    @property
    def channel_scale(self) -> np.ndarray:
        """The weight scale of each output channel, float32[CO]."""
        return self.weight.scale.reshape(-1, self.weight.scale.shape[-1])[0]

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.kernel.input_types()[0][0]

    @property
    def output_shape(self) -> tuple[int, ...]:
        return self.kernel.output_types()[0][0]


def match_anchor(rewriter: Rewriter, expr: relax.Expr) -> Anchor | None:
    """Return the layer that computes `expr` (before any quantization), with its bias if it has one."""
    bound = rewriter.lookup(expr)
    if op_name(bound) == "reshape":
        inner = match_anchor(rewriter, bound.args[0])
        return None if inner is None else replace(inner, shape=shape_of(expr))
    if op_name(bound) != "add":
        return _match_product(rewriter, expr)
    for product, bias in (bound.args, bound.args[::-1]):
        values = constant_array(rewriter, bias)
        anchor = None if values is None else _match_reshaped_product(rewriter, product)
        if anchor is not None and values is not None and values.size == anchor.bias.size:
            return replace(anchor, bias=values.reshape(-1).astype(np.float32), shape=shape_of(expr))
    return None


def _match_reshaped_product(rewriter: Rewriter, expr: relax.Expr) -> Anchor | None:
    """Match a product whose rows are arranged otherwise before the bias is added."""
    while op_name(rewriter.lookup(expr)) == "reshape" and (
        shape_of(expr)[-1] == shape_of(rewriter.lookup(expr).args[0])[-1]
    ):
        expr = rewriter.lookup(expr).args[0]
    return _match_product(rewriter, expr)


def _match_product(rewriter: Rewriter, expr: relax.Expr) -> Anchor | None:
    bound = rewriter.lookup(expr)
    if op_name(bound) == "nn.conv2d" and bound.attrs.data_layout == "NHWC":
        return _match_conv2d(rewriter, bound, shape_of(expr))
    if op_name(bound) == "matmul":
        return _match_matmul(rewriter, bound, shape_of(expr))
    return None


def _match_matmul(rewriter: Rewriter, call: relax.Call, shape: tuple[int, ...]) -> Anchor | None:
    source, weight = _activation(rewriter, call.args[0]), weight_of(rewriter, call.args[1])
    weight = None if weight is None else _without_batch(weight)
    if source is None or weight is None or not _per_output_channel(weight):
        return None
    ci, co = weight.data.shape
    kernel = Dense(t=prod(shape) // co, ci=ci, co=co, x_dtype=source.dtype)
    return Anchor(kernel, source, weight, np.zeros(co, np.float32), shape, layer_of(call))


def _without_batch(weight: Weight) -> Weight | None:
    """Return the one matrix [CI, CO] of a batch of equal ones; torch writes some linear layers as such products."""
    matrices = weight.data.reshape(-1, *weight.data.shape[-2:])
    scales = weight.scale.reshape(matrices.shape)
    if (matrices != matrices[0]).any() or (scales != scales[0]).any():
        return None
    return Weight(matrices[0], scales[0])


def _activation(rewriter: Rewriter, expr: relax.Expr) -> Quantized | None:
    source = dequantized(rewriter, expr)
    return source if source is not None and source.is_activation else None


def _match_conv2d(rewriter: Rewriter, call: relax.Call, shape: tuple[int, ...]) -> Anchor | None:
    source, weight = _activation(rewriter, call.args[0]), weight_of(rewriter, call.args[1])
    attrs = call.attrs
    if source is None or weight is None or not _per_output_channel(weight):
        return None
    if any(int(d) != 1 for d in attrs.dilation):
        return None
    n, h, w, c = shape_of(source.data)
    kh, kw, ci, co = weight.data.shape
    stride_h, stride_w = (int(s) for s in attrs.strides)
    top, left, bottom, right = (int(p) for p in attrs.padding)
    window = {
        "n": n, "h": h, "w": w, "kh": kh, "kw": kw, "stride_h": stride_h, "stride_w": stride_w,
        "pad_top": top, "pad_left": left, "pad_bottom": bottom, "pad_right": right, "x_dtype": source.dtype,
    }  # fmt: skip
    bias = np.zeros(co, np.float32)
    if int(attrs.groups) == 1:
        if kh == kw == stride_h == stride_w == 1 and not any((top, left, bottom, right)):
            weight = Weight(weight.data.reshape(ci, co), weight.scale.reshape(ci, co))
            kernel = Dense(t=n * h * w, ci=ci, co=co, x_dtype=source.dtype)
            return Anchor(kernel, source, weight, bias, shape, layer_of(call))
        return Anchor(Conv2d(ci=ci, co=co, **window), source, weight, bias, shape, layer_of(call))
    if int(attrs.groups) == c == co and ci == 1:
        weight = Weight(weight.data.reshape(kh, kw, co), weight.scale.reshape(kh, kw, co))
        return Anchor(Depthwise(c=c, **window), source, weight, bias, shape, layer_of(call))
    return None


def _per_output_channel(weight: Weight) -> bool:
    rows = weight.scale.reshape(-1, weight.scale.shape[-1])
    return bool((rows == rows[0]).all())
