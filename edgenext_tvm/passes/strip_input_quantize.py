"""The image enters as int8: the quantization of the input moves out of the network into preprocessing.

Before::

    def main(x: R.Tensor((1, 256, 256, 3), "float32")):
        lv = R.quantize(x, s, z)

After::

    def main(x: R.Tensor((1, 256, 256, 3), "int8")):     # attribute enx.input = {"scale": s, "zero_point": z}

Why here: after CanonicalizeQDQ, when the input has one reader. The library's preprocessing maps pixel levels to
int8 through a table, so a float image never exists.

Leaves alone: a float program (no quantize reads the input), or one that quantizes its input in two ways or not to int8.
"""

from __future__ import annotations

import json

import tvm
from tvm import relax

from edgenext_tvm.passes.qdq import is_per_tensor, quantization_of
from edgenext_tvm.passes.rewrite import Rewriter, bindings_of, op_name, shape_of

INPUT_ATTR = "enx.input"


def strip_input_quantize(mod: tvm.IRModule) -> tvm.IRModule:
    """Return the module with an int8 input, if the input is quantized in exactly one way."""
    (image,) = mod["main"].params
    readers = [value for _, value in bindings_of(mod) if _reads(value, image)]
    if not readers or any(op_name(r) != "quantize" or not is_per_tensor(r) for r in readers):
        return mod
    params = {(p.scale, p.zero_point) for p in map(quantization_of, readers)}
    if len(params) != 1 or any(quantization_of(r).dtype != "int8" for r in readers):
        return mod
    ((scale, zero_point),) = params
    mod = _InputStripper(mod).run()
    main = mod["main"].with_attr(INPUT_ATTR, json.dumps({"scale": scale, "zero_point": zero_point}))
    return tvm.IRModule({**{gv: func for gv, func in mod.functions.items() if gv.name_hint != "main"}, "main": main})


def _reads(value: relax.Expr, var: relax.Var) -> bool:
    if isinstance(value, relax.Var):
        return value.same_as(var)
    if isinstance(value, relax.Tuple):
        return any(_reads(field, var) for field in value.fields)
    if isinstance(value, relax.TupleGetItem):
        return _reads(value.tuple_value, var)
    return isinstance(value, relax.Call) and any(_reads(arg, var) for arg in value.args)


class _InputStripper(Rewriter):
    def parameter(self, param: relax.Var) -> relax.Var:
        self.image = relax.Var(param.name, relax.TensorType(shape_of(param), "int8"))
        return self.image

    def rewrite(self, value: relax.Expr, var: relax.Var) -> relax.Expr | None:
        if op_name(value) == "quantize" and value.args[0].same_as(self.image):
            return self.image
        return None
