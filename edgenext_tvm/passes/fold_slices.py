"""Slices of channels copy nothing: the kernel that reads a slice reads the whole tensor at an offset.

Before::

    lv = R.split(x, indices_or_sections=[30, 60], axis=3)
    lv1 = lv[1]                                                 # int8 [1, 16, 16, 30]
    lv2 = R.call_tir(depthwise, (lv1, ...))

After::

    lv2 = R.call_tir(depthwise_30_of_88, (x, ...))

Why here: after WriteConcatsInPlace, which leaves slices of its buffers.

Leaves alone: slices of other axes. A slice read by a kernel that cannot read at an offset is copied by a kernel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import tvm
from tvm import relax

from edgenext_tvm.kernels.add import Add
from edgenext_tvm.kernels.depthwise import Depthwise
from edgenext_tvm.kernels.lut import Lut
from edgenext_tvm.kernels.rescale import Rescale
from edgenext_tvm.passes.channel_copy import channel_copy
from edgenext_tvm.passes.rewrite import Rewriter, op_name, shape_of


def fold_slices(mod: tvm.IRModule) -> tvm.IRModule:
    """Return the module whose channel slices are offsets in the kernels that read them."""
    return _SliceFolder(mod).run()


@dataclass(frozen=True)
class _ChannelSlice:
    base: relax.Expr
    offset: int
    width: int


class _SliceFolder(Rewriter):
    def rewrite(self, value: relax.Expr, var: relax.Var) -> relax.Expr | None:
        kernel = self.kernel_of_call(value)
        if kernel is None:
            return None
        operands = list(value.args[1].fields)
        if isinstance(kernel, Depthwise | Lut | Rescale) and kernel.x_channels == kernel.c:
            kernel, operands[0] = self.read(kernel, operands[0], "x_channels", "x_offset")
        elif isinstance(kernel, Add):
            for index, side in enumerate("ab"):
                if getattr(kernel, f"{side}_channels") == kernel.c:
                    kernel, operands[index] = self.read(kernel, operands[index], f"{side}_channels", f"{side}_offset")
        operands = [self.copied(operand) for operand in operands]
        return self.kernel_call(kernel, operands)

    def read(self, kernel, operand: relax.Expr, channels: str, offset: str):
        """Return (kernel, operand) that read a slice's base at its offset; unchanged if it is no slice."""
        found = self.channel_slice(operand)
        if found is None:
            return kernel, operand
        total = shape_of(found.base)[-1]
        base = self.reshape(found.base, (*shape_of(operand)[:-1], total))
        return replace(kernel, **{channels: total, offset: found.offset}), base

    def channel_slice(self, expr: relax.Expr) -> _ChannelSlice | None:
        bound = self.lookup(expr)
        width = shape_of(expr)[-1] if shape_of(expr) else 0
        if op_name(bound) == "reshape":
            inner = self.channel_slice(bound.args[0])
            return inner if inner and inner.width == width else None
        if op_name(bound) == "strided_slice":
            rank = len(shape_of(expr))
            axes, begins = ([int(v.value) for v in arg.fields] for arg in bound.args[1:3])
            strides = [int(v.value) for v in bound.args[4].fields] if len(bound.args) > 4 else [1]
            if [axis % rank for axis in axes] == [rank - 1] and strides == [1]:
                return _ChannelSlice(bound.args[0], begins[0], width)
        if isinstance(bound, relax.TupleGetItem) and op_name(split := self.lookup(bound.tuple_value)) == "split":
            rank = len(shape_of(expr))
            if int(split.attrs.axis) % rank == rank - 1:
                widths = [int(field.shape.values[rank - 1]) for field in bound.tuple_value.ty.fields]
                return _ChannelSlice(split.args[0], sum(widths[: bound.index]), width)
        return None

    def copied(self, operand: relax.Expr) -> relax.Expr:
        """Return the operand, copied out of the tensor that it is a slice of if it is one."""
        found = self.channel_slice(operand) if isinstance(operand, relax.Var) else None
        if found is None:
            return operand
        rows = prod(shape_of(operand)[:-1])
        total = shape_of(found.base)[-1]
        kernel, parameters = channel_copy(rows, found.width, str(operand.ty.dtype))
        kernel = replace(kernel, x_channels=total, x_offset=found.offset)
        return self.reshape(
            self.call_kernel(kernel, [self.reshape(found.base, (rows, total)), *parameters]), shape_of(operand)
        )
