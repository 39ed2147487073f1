"""Unsigned 8-bit activations become signed ones: the same values, 128 lower, with a zero point 128 lower.

Before::

    lv = R.quantize(x, s, R.const(131, "uint8"), out_dtype="uint8")
    lv1 = R.dequantize(lv, s, R.const(131, "uint8"))

After::

    lv = R.quantize(x, s, R.const(3, "int8"), out_dtype="int8")
    lv1 = R.dequantize(lv, s, R.const(3, "int8"))

Why here: first, on the imported program (ONNX models often quantize activations to uint8); everything
later knows int8 only.

Leaves alone: int8 programs, int32 biases.
"""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax
from tvm.ir import GenericConst as Constant

from edgenext_tvm.passes.rewrite import Rewriter, op_name


def sign_activations(mod: tvm.IRModule) -> tvm.IRModule:
    """Return the module with int8 in place of uint8 tensors."""
    return _Signer(mod).run()


class _Signer(Rewriter):
    def rewrite(self, value: relax.Expr, var: relax.Var) -> relax.Expr | None:
        if op_name(value) == "quantize" and str(value.attrs.out_dtype) == "uint8":
            return relax.op.quantize(value.args[0], value.args[1], _signed(value.args[2]), value.attrs.axis, "int8")
        if op_name(value) == "dequantize" and str(value.args[2].ty.dtype) == "uint8":
            data = value.args[0]
            data = _signed(data) if isinstance(data, Constant) else data
            return relax.op.dequantize(data, value.args[1], _signed(value.args[2]), value.attrs.axis, "float32")
        return None


def _signed(constant: Constant) -> Constant:
    return relax.const((constant.value.numpy().astype(np.int16) - 128).astype(np.int8))
