"""The mean over all pixels becomes one integer kernel.

Before::

    lv = R.mean(R.dequantize(x, s, z), axis=[1, 2])
    lv1 = R.quantize(lv, so, zo)

After::

    lv1 = R.call_tir(global_avg_pool, (x, mult, qp), out_ty=R.Tensor((1, 168), "int8"))

Why here: after ConvertLayout, so that the pixels are axes 1 and 2.

Leaves alone: means over other axes.
"""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax

from edgenext_tvm.kernels.global_avg_pool import GlobalAvgPool
from edgenext_tvm.kernels.qparams import pool_params
from edgenext_tvm.passes.qdq import dequantized, is_per_tensor, quantization_of
from edgenext_tvm.passes.rewrite import Rewriter, layer_of, op_name, shape_of


def fuse_global_pools(mod: tvm.IRModule) -> tvm.IRModule:
    """Return the module with every quantized global average pooling as a call of its kernel."""
    return _PoolFuser(mod).run()


class _PoolFuser(Rewriter):
    def rewrite(self, value: relax.Expr, var: relax.Var) -> relax.Expr | None:
        if op_name(value) != "quantize" or not is_per_tensor(value):
            return None
        target = quantization_of(value)
        mean = self.lookup(target.data)
        if op_name(mean) != "mean":
            return None
        source = dequantized(self, mean.args[0])
        if source is None or not (source.is_activation and target.is_activation):
            return None
        if len(shape_of(source.data)) != 4 or sorted(int(a) % 4 for a in mean.attrs.axis) != [1, 2]:
            return None
        self.layer = layer_of(mean) or self.layer
        n, h, w, c = shape_of(source.data)
        mult = pool_params(source.scale, target.scale, h, w)
        qp = np.array([source.zero_point, target.zero_point], np.int32)
        kernel = GlobalAvgPool(n, h, w, c, source.dtype, target.dtype)
        pooled = self.call_kernel(kernel, [source.data, mult, qp])
        return self.reshape(pooled, shape_of(var))
