"""A dense layer with a table and the dense layer after it become one kernel that keeps only a few hidden rows.

Before::

    lv = R.call_tir(dense_lut, (x, w1, bias1, mult1, qp1, table), out_ty=R.Tensor((4096, 96), "int8"))
    lv1 = R.call_tir(dense_residual, (lv, w2, bias2, mult2, qp2, r, rp, rs), out_ty=R.Tensor((4096, 24), "int8"))

After::

    lv1 = R.call_tir(inverted_bottleneck_residual, (x, w1, bias1, mult1, qp1, table, w2, bias2, mult2, qp2, r, rp, rs))

Why here: after the fusions that make dense layers, their tables and their residuals.

Leaves alone: layers that read or write wide tensors (int16), hidden tensors that others read, and small ones (less than
MIN_HIDDEN_BYTES), for which memory is no concern and whole layers use the weights better.
"""

from __future__ import annotations

import tvm
from tvm import relax

from edgenext_tvm.kernels.dense import Dense
from edgenext_tvm.kernels.inverted_bottleneck import InvertedBottleneck
from edgenext_tvm.passes.rewrite import Rewriter, layer_of, op_name

MIN_HIDDEN_BYTES = 64 * 1024


def fuse_inverted_bottlenecks(mod: tvm.IRModule) -> tvm.IRModule:
    """Return the module without large hidden tensors between two dense layers."""
    return _BottleneckFuser(mod).run()


class _BottleneckFuser(Rewriter):
    def rewrite(self, value: relax.Expr, var: relax.Var) -> relax.Expr | None:
        narrow = self.kernel_of_call(value)
        if not isinstance(narrow, Dense) or narrow.out_dtype != "int8" or narrow.epilogue == "lut":
            return None
        hidden, *others = value.args[1].fields
        if (widening := self.only_read_here(hidden)) is None:
            return None
        widen = self.kernel_of_call(widening)
        if not isinstance(widen, Dense) or widen.epilogue != "lut" or (widen.t, widen.co) != (narrow.t, narrow.ci):
            return None
        if widen.is_wide or narrow.is_wide:
            return None
        if widen.t * widen.co < MIN_HIDDEN_BYTES:
            return None
        self.layer = layer_of(value) or self.layer
        kernel = InvertedBottleneck(widen.t, widen.ci, widen.co, narrow.co, narrow.epilogue)
        return self.kernel_call(kernel, [*widening.args[1].fields, *others])

    def only_read_here(self, hidden: relax.Expr) -> relax.Expr | None:
        """Return the call behind `hidden` and its reshapes if nothing else reads it on the way."""
        while self.reader_count(hidden) == 1:
            value = self.lookup(hidden)
            if op_name(value) != "reshape":
                return value
            hidden = value.args[0]
        return None
