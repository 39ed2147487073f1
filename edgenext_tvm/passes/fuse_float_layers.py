"""In a float32 program each layer becomes one kernel, with the elementwise operators and movement behind it.

Before::

    lv = R.matmul(x, w)
    lv1 = R.add(lv, bias)
    lv2 = R.nn.gelu(lv1)

After::

    lv2 = R.call_tir(island, (x, w, bias), out_ty=R.Tensor((64, 96), "float32"))

Why here: after ConvertLayout; the float32 path has no other fusion. A tensor is stored where a reduction (matrix
product, convolution, normalisation, mean, ...) reads it, or more than one operator does.

Leaves alone: reshapes of stored tensors, which are free.
"""

from __future__ import annotations

import tvm
from tvm import relax

from edgenext_tvm.passes.fuse_islands import IslandFuser, lower_islands
from edgenext_tvm.passes.rewrite import bindings_of, op_name

REDUCTIONS = {
    "matmul", "nn.conv2d", "nn.layer_norm", "nn.softmax", "nn.max_pool2d", "nn.avg_pool2d", "mean", "sum", "max", "min",
}  # fmt: skip


def fuse_float_layers(mod: tvm.IRModule) -> tvm.IRModule:
    """Return the float32 module as calls of one generated kernel per stored tensor."""
    return lower_islands(_LayerFuser(mod))


class _LayerFuser(IslandFuser):
    def __init__(self, mod: tvm.IRModule) -> None:
        super().__init__(mod)
        old = dict(bindings_of(mod))
        result = mod["main"].body.body
        self.stored = {
            var
            for var in old
            if var.same_as(result)
            or len(set(self.uses[var])) > 1
            or any(op_name(old[reader]) in REDUCTIONS for reader in self.uses[var])
        }

    def rewrite(self, value: relax.Expr, var: relax.Var) -> relax.Expr | None:
        if isinstance(value, relax.TupleGetItem) and op_name(self.lookup(value.tuple_value)) == "split":
            value = self.slice_of_split(value)
        elif not isinstance(value, relax.Call) or isinstance(var.ty, relax.TupleType):
            return None
        if op_name(value) == "reshape" and (not isinstance(value.args[0], relax.Var) or self.is_written(value.args[0])):
            return None
        if var in self.stored:
            return self.island(self.emit(value))
        return value

    def is_written(self, expr: relax.Var) -> bool:
        """A reshape of a written tensor is a view of it."""
        bound = self.value.get(expr)
        if bound is not None and op_name(bound) == "reshape" and isinstance(bound.args[0], relax.Var):
            return self.is_written(bound.args[0])
        return super().is_written(expr)

    def is_stored(self, expr: relax.Var) -> bool:
        return False
