"""A clamp of a float result is done on the quantized result, so that the layer before it is quantized at once.

Before::

    lv = R.nn.relu(R.nn.conv2d(...))
    lv1 = R.quantize(lv, s, z)

After::

    lv = R.quantize(R.nn.conv2d(...), s, z)
    lv1 = R.quantize(R.nn.relu(R.dequantize(lv, s, z)), s, z)

Why here: after CanonicalizeQDQ and before the fusions; ONNX exporters leave no quantization between a layer and
its ReLU. Quantization is monotonic, so both orders give the same int8 value. What remains is a table, which
FuseLookups merges into the layer or drops where quantization clamps by itself.

Leaves alone: clamps of a dequantized tensor (they are tables already), clamps to a wide tensor (int16), and functions
that are not clamps.
"""

from __future__ import annotations

import tvm
from tvm import relax

from edgenext_tvm.passes.elementwise import elementwise_function
from edgenext_tvm.passes.qdq import Quantized, is_per_tensor, quantization_of, quantize
from edgenext_tvm.passes.rewrite import Rewriter, op_name

CLAMPS = ("nn.relu", "nn.relu6", "clip")


def quantize_before_clamps(mod: tvm.IRModule) -> tvm.IRModule:
    """Return the module in which ReLU, ReLU6 and clip read dequantized tensors wherever they are quantized."""
    return _ClampSinker(mod).run()


class _ClampSinker(Rewriter):
    def rewrite(self, value: relax.Expr, var: relax.Var) -> relax.Expr | None:
        if op_name(value) != "quantize" or not is_per_tensor(value):
            return None
        target = quantization_of(value)
        return self.clamped(target) if target.dtype == "int8" and self.is_float_clamp(target.data) else None

    def is_float_clamp(self, expr: relax.Expr) -> bool:
        return op_name(self.lookup(expr)) in CLAMPS and elementwise_function(self, expr) is None

    def clamped(self, target: Quantized) -> relax.Call:
        """Return the (unbound) quantization of a clamp, done after its operand's own quantization."""
        clamp = self.lookup(target.data)
        operand = target.with_data(clamp.args[0])
        inner = self.clamped(operand) if self.is_float_clamp(operand.data) else quantize(operand.data, target)
        real = self.emit(target.with_data(self.emit(inner)).dequantize())
        return quantize(self.emit(relax.Call(clamp.op, [real, *clamp.args[1:]], clamp.attrs, clamp.ty_args)), target)
