"""Each convolution or linear layer becomes one integer kernel, with its bias, requantization and residual addition.

Before::

    lv = R.matmul(R.dequantize(x, s, z), R.dequantize(w, sw, 0))
    lv1 = R.add(lv, bias)
    lv2 = R.add(R.dequantize(r, sr, zr), lv1)
    lv3 = R.quantize(lv2, so, zo)

After::

    lv3 = R.call_tir(dense, (x, w, bias_i32, mult, qp, r, rp, rs), out_ty=R.Tensor((64, 24), "int8"))

Why here: after CanonicalizeQDQ, so that operands are dequantized tensors and results are quantized at once. Every
operand and result but the weight may be a wide tensor (int16) as well.
A layer whose float result is what the network returns becomes the kernel that writes float32 logits.

Leaves alone: products of two activations, grouped or dilated convolutions, weights that are not symmetric int8
constants; they stay float islands.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import tvm
from tvm import relax

from edgenext_tvm.kernels.dense import Dense
from edgenext_tvm.kernels.qparams import DenseParams, dense_params, residual_params
from edgenext_tvm.passes.anchor import Anchor, match_anchor
from edgenext_tvm.passes.qdq import Quantized, dequantized, is_per_tensor, quantization_of
from edgenext_tvm.passes.rewrite import Rewriter, op_name


def fuse_anchors(mod: tvm.IRModule) -> tvm.IRModule:
    """Return the module with every recognised layer as a call of an integer kernel."""
    return _AnchorFuser(mod).run()


class _AnchorFuser(Rewriter):
    def rewrite(self, value: relax.Expr, var: relax.Var) -> relax.Expr | None:
        if op_name(value) != "quantize" or not is_per_tensor(value):
            return None
        target = quantization_of(value)
        if not target.is_activation:
            return None
        if anchor := match_anchor(self, target.data):
            return self.layer_call(anchor, target)
        bound = self.lookup(target.data)
        if op_name(bound) == "add":
            for residual, branch in (bound.args, bound.args[::-1]):
                source, anchor = dequantized(self, residual), match_anchor(self, branch)
                if source and source.is_activation and anchor:
                    return self.residual_call(anchor, source, target)
        return None

    def finish(self, result: relax.Expr) -> relax.Expr:
        anchor = match_anchor(self, result)
        if anchor is None or not isinstance(anchor.kernel, Dense):
            return result
        self.layer = anchor.layer
        kernel = replace(anchor.kernel, out_dtype="float32")
        weight, bias, mult = _parameters(anchor, 1.0)
        qp = np.array([anchor.source.zero_point, 0], np.int32)
        source = self.reshape(anchor.source.data, anchor.input_shape)
        return self.reshape(self.call_kernel(kernel, [source, weight, bias, mult, qp]), anchor.shape)

    def layer_call(self, anchor: Anchor, target: Quantized) -> relax.Expr:
        self.layer = anchor.layer
        weight, bias, mult = _parameters(anchor, target.scale)
        qp = np.array([anchor.source.zero_point, target.zero_point], np.int32)
        source = self.reshape(anchor.source.data, anchor.input_shape)
        kernel = replace(anchor.kernel, out_dtype=target.dtype)
        return self.reshape(self.call_kernel(kernel, [source, weight, bias, mult, qp]), anchor.shape)

    def residual_call(self, anchor: Anchor, residual: Quantized, target: Quantized) -> relax.Expr:
        self.layer = anchor.layer
        weight, bias, mult = _parameters(anchor, target.scale)
        params = residual_params(mult, target.scale, residual.scale, residual.zero_point, target.dtype, residual.dtype)
        operands = [
            self.reshape(anchor.source.data, anchor.input_shape),
            weight,
            bias,
            params.mult,
            np.array([anchor.source.zero_point, target.zero_point], np.int32),
            self.reshape(residual.data, anchor.output_shape),
            params.rp,
            params.rs,
        ]
        kernel = replace(anchor.kernel, epilogue="residual", out_dtype=target.dtype, r_dtype=residual.dtype)
        return self.reshape(self.call_kernel(kernel, operands), anchor.shape)


def _parameters(anchor: Anchor, scale_out: float) -> DenseParams:
    source = anchor.source
    return dense_params(
        anchor.weight.data,
        anchor.bias,
        source.scale,
        source.zero_point,
        scale_out,
        scales=anchor.channel_scale,
        x_dtype=source.dtype,
    )
