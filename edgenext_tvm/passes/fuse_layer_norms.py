"""Layer normalisation of an int8 or wide (int16) tensor over its last axis becomes one integer kernel.

Before::

    lv = R.nn.layer_norm(R.dequantize(x, s, z), gamma, beta, axes=[-1], epsilon=1e-6)
    lv1 = R.quantize(lv, so, zo)

After::

    lv1 = R.call_tir(layer_norm, (x, ln, qp), out_ty=R.Tensor((64, 24), "int8"))

Why here: after CanonicalizeQDQ. Where gamma is 1 and beta is 0 (folded into the next layer before quantization)
the kernel has no affine part.

Leaves alone: normalisation over other axes than the last.
"""

from __future__ import annotations

from math import prod

import numpy as np
import tvm
from tvm import relax
from tvm.ir import GenericConst as Constant

from edgenext_tvm.kernels.layer_norm import LayerNorm
from edgenext_tvm.kernels.qparams import layer_norm_params
from edgenext_tvm.passes.qdq import dequantized, is_per_tensor, quantization_of
from edgenext_tvm.passes.rewrite import Rewriter, layer_of, op_name, shape_of


def fuse_layer_norms(mod: tvm.IRModule) -> tvm.IRModule:
    """Return the module with every quantized layer normalisation as a call of its kernel."""
    return _LayerNormFuser(mod).run()


class _LayerNormFuser(Rewriter):
    def rewrite(self, value: relax.Expr, var: relax.Var) -> relax.Expr | None:
        if op_name(value) != "quantize" or not is_per_tensor(value):
            return None
        target = quantization_of(value)
        norm = self.lookup(target.data)
        if op_name(norm) != "nn.layer_norm" or not all(isinstance(a, Constant) for a in norm.args[1:3]):
            return None
        source = dequantized(self, norm.args[0])
        shape = shape_of(var)
        if source is None or not (source.is_activation and target.is_activation):
            return None
        if [int(a) % len(shape) for a in norm.attrs.axes] != [len(shape) - 1]:
            return None
        self.layer = layer_of(norm) or self.layer
        gamma, beta = (a.value.numpy().astype(np.float32) for a in norm.args[1:3])
        affine = bool((gamma != 1).any() or (beta != 0).any())
        kernel = LayerNorm(prod(shape[:-1]), shape[-1], affine, source.dtype, target.dtype)
        params = layer_norm_params(
            float(norm.attrs.epsilon),
            source.scale,
            target.scale,
            kernel.c,
            gamma if affine else None,
            beta if affine else None,
            source.dtype,
            target.dtype,
        )
        operands = [
            self.reshape(source.data, (kernel.t, kernel.c)),
            params.ln,
            np.array([target.zero_point], np.int32),
            *(array for array in params[1:] if array is not None),
        ]
        return self.reshape(self.call_kernel(kernel, operands), shape)
