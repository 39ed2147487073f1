"""Where the elements of a moved tensor come from: data movement evaluated on element indices."""

from __future__ import annotations

import numpy as np
from tvm import relax

from edgenext_tvm.passes.rewrite import Rewriter, op_name, shape_of, split_sections


def element_indices(rewriter: Rewriter, expr: relax.Expr) -> tuple[relax.Expr, np.ndarray]:
    """Return (source, indices): ``expr.flat[i] == source.flat[indices.flat[i]]``, through movement and dequantize.

    `source` is the first tensor, walking back, that is not made by data movement; `indices` is int64 in the
    shape of `expr`.
    """
    bound = rewriter.lookup(expr)
    name = op_name(bound)
    if name == "dequantize":
        return element_indices(rewriter, bound.args[0])
    if name in ("reshape", "squeeze", "expand_dims", "flatten"):
        source, indices = element_indices(rewriter, bound.args[0])
        return source, indices.reshape(shape_of(expr))
    if name == "broadcast_to":
        source, indices = element_indices(rewriter, bound.args[0])
        return source, np.broadcast_to(indices, shape_of(expr))
    if name == "permute_dims":
        source, indices = element_indices(rewriter, bound.args[0])
        return source, indices.transpose([int(a) for a in bound.attrs.axes] if bound.attrs.axes else None)
    if name == "strided_slice":
        source, indices = element_indices(rewriter, bound.args[0])
        return source, indices[_slices(bound, indices.ndim)]
    if isinstance(bound, relax.TupleGetItem) and op_name(split := rewriter.lookup(bound.tuple_value)) == "split":
        source, indices = element_indices(rewriter, split.args[0])
        return source, np.split(indices, split_sections(split), axis=int(split.attrs.axis))[bound.index]
    return expr, np.arange(int(np.prod(shape_of(expr))), dtype=np.int64).reshape(shape_of(expr))


def _slices(call: relax.Call, rank: int) -> tuple[slice, ...]:
    axes, begins, ends = ([int(v.value) for v in arg.fields] for arg in call.args[1:4])
    strides = [int(v.value) for v in call.args[4].fields] if len(call.args) > 4 else [1] * len(axes)
    slices = [slice(None)] * rank
    for axis, begin, end, stride in zip(axes, begins, ends, strides, strict=True):
        slices[axis] = slice(begin, end, stride)
    return tuple(slices)
