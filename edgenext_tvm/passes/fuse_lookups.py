"""Activation functions and requantizations become 256-entry tables, looked up by the kernel before them.

Before::

    lv = R.call_tir(dense, (x, w, bias, mult, qp))
    lv1 = R.quantize(R.nn.gelu(R.dequantize(lv, s, z)), so, zo)

After::

    lv1 = R.call_tir(dense_lut, (x, w, bias, mult, qp, table))

Why here: after FuseAnchors, which made the kernels that tables are merged into. A table holds what float64
arithmetic gives for each of the 256 inputs, rounded once: nothing is approximated and every target has the same bits.

Leaves alone: a layer whose int8 result others read as well (the table is then a kernel of its own), functions of more
than one tensor, and functions from or to wide tensors (int16), whose plain requantization is a kernel of its own.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import tvm
from tvm import relax
from tvm.ir import GenericConst as Constant

from edgenext_tvm.kernels.conv2d import Conv2d
from edgenext_tvm.kernels.dense import Dense
from edgenext_tvm.kernels.depthwise import Depthwise
from edgenext_tvm.kernels.lut import Lut
from edgenext_tvm.kernels.qparams import lut_params, rescale_params
from edgenext_tvm.kernels.requantize import lut as apply_table
from edgenext_tvm.kernels.rescale import Rescale
from edgenext_tvm.passes.elementwise import IDENTITY_TABLE, Function, elementwise_function
from edgenext_tvm.passes.qdq import Quantized, dequantized, is_per_tensor, quantization_of
from edgenext_tvm.passes.rewrite import Rewriter, layer_of, op_name, shape_of


def fuse_lookups(mod: tvm.IRModule) -> tvm.IRModule:
    """Return the module with elementwise functions of one tensor as table look-ups."""
    return _LookupFuser(mod).run()


class _LookupFuser(Rewriter):
    def rewrite(self, value: relax.Expr, var: relax.Var) -> relax.Expr | None:
        if op_name(value) != "quantize" or not is_per_tensor(value):
            return None
        target = quantization_of(value)
        source = dequantized(self, target.data)
        if source is not None and "int16" in (source.dtype, target.dtype):
            return self.rescaled(source, target, shape_of(var))
        if target.dtype != "int8":
            return None
        found = elementwise_function(self, target.data)
        if found is None:
            return None
        source, function = found
        table = lut_params(_total(function), source.scale, source.zero_point, target.scale, target.zero_point)
        if self.keeps_every_level(source.data, table):
            return self.reshape(source.data, shape_of(var))
        result = self.merged(source.data, table)
        if result is None:
            result = self.separate(source.data, table)
        return self.reshape(result, shape_of(var))

    def keeps_every_level(self, data: relax.Expr, table: np.ndarray) -> bool:
        """A network's input stays an operand of some kernel: it cannot be the result of the network as well."""
        return bool((table == IDENTITY_TABLE).all()) and not data.same_as(self.mod["main"].params[0])

    def merged(self, data: relax.Expr, table: np.ndarray) -> relax.Expr | None:
        """Repeat the producing kernel's call with the table in its epilogue; None if it cannot be merged."""
        producer = data
        while op_name(self.lookup(producer)) == "reshape" and self.reader_count(producer) == 1:
            producer = self.lookup(producer).args[0]
        call = self.lookup(producer)
        kernel = self.kernel_of_call(call)
        if kernel is None or self.reader_count(producer) != 1:
            return None
        if isinstance(kernel, Conv2d | Dense | Depthwise) and kernel.epilogue == "none":
            operands, kernel = [*call.args[1].fields, table], replace(kernel, epilogue="lut")
        elif isinstance(kernel, Lut) or getattr(kernel, "epilogue", "") == "lut":
            *operands, first = call.args[1].fields
            operands.append(apply_table(table, first.value.numpy()))
        else:
            return None
        self.layer = layer_of(call) or self.layer
        return self.call_kernel(kernel, operands)

    def rescaled(self, source: Quantized, target: Quantized, shape: tuple[int, ...]) -> relax.Expr | None:
        """Return a requantization from or to a wide tensor, which is arithmetic and no table."""
        if isinstance(source.data, Constant) or not (source.is_activation and target.is_activation):
            return None
        *rows, c = shape or (1,)
        kernel = Rescale(int(np.prod(rows)), c, source.dtype, target.dtype)
        qp = np.array([source.zero_point, target.zero_point], np.int32)
        mult = rescale_params(source.scale, target.scale)
        return self.reshape(self.call_kernel(kernel, [self.reshape(source.data, (kernel.t, c)), mult, qp]), shape)

    def separate(self, data: relax.Expr, table: np.ndarray) -> relax.Expr:
        *rows, c = shape_of(data) or (1, 1)
        kernel = Lut(t=int(np.prod(rows)), c=c)
        return self.call_kernel(kernel, [self.reshape(data, (kernel.t, c)), table])


def _total(function: Function) -> Function:
    """Return `function` with 0 where it is not a number: inputs there have no meaning, so any entry will do."""

    def evaluate(x: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.nan_to_num(function(x), posinf=np.inf, neginf=-np.inf)

    return evaluate
