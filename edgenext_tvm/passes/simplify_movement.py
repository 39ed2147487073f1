"""Chains of reshapes and permutations that move nothing become one reshape, which is free.

Before::

    lv = R.reshape(x, [16, 4, 10]); lv1 = R.permute_dims(lv, [1, 2, 0])
    lv2 = R.permute_dims(lv1, [2, 0, 1]); lv3 = R.reshape(lv2, [16, 40])

After::

    lv3 = x

Why here: after the fusions, whose kernels read and write NHWC or [T, C] whatever the graph around them did.

Leaves alone: movement that really changes the order of elements.
"""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax

from edgenext_tvm.passes.movement import element_indices
from edgenext_tvm.passes.rewrite import Rewriter, op_name, shape_of


def simplify_movement(mod: tvm.IRModule) -> tvm.IRModule:
    """Return the module in which reshapes and permutations that keep the order of elements are reshapes."""
    return _MovementSimplifier(mod).run()


class _MovementSimplifier(Rewriter):
    def rewrite(self, value: relax.Expr, var: relax.Var) -> relax.Expr | None:
        if op_name(value) not in ("reshape", "permute_dims", "squeeze", "expand_dims", "flatten"):
            return None
        base, indices = element_indices(self, self.emit(value))
        if indices.dtype != np.int64 or base.ty.dtype != var.ty.dtype:
            return None
        flat = indices.reshape(-1)
        if flat.size != int(np.prod(shape_of(base))) or (flat != np.arange(flat.size)).any():
            return None
        return self.reshape(base, shape_of(var))
