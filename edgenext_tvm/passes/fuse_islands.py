"""Whatever float arithmetic is left between int8 tensors runs as one kernel per result: a float island.

Before::

    lv = R.dequantize(x, s, z)
    lv1 = R.nn.max_pool2d(lv, ...)
    lv2 = R.sigmoid(lv1)
    lv3 = R.quantize(lv2, so, zo)

After::

    lv3 = R.call_tir(island, (x,), out_ty=R.Tensor((1, 8, 8, 24), "int8"))

Why here: after all fusions that know a better kernel. No float tensor crosses a kernel boundary, and any static
program compiles. An island computes in the target's float arithmetic: its bits are not promised across targets.

Leaves alone: calls of kernels and reshapes; data movement on int8 becomes a kernel of its own.
"""

from __future__ import annotations

import tvm
from tvm import relax
from tvm.ir import GenericConst as Constant
from tvm_ffi import structural_equal

from edgenext_tvm.kernels.wide import WIDE_QMAX, WIDE_QMIN
from edgenext_tvm.passes.qdq import quantization_of
from edgenext_tvm.passes.rewrite import Rewriter, bindings_of, layer_of, op_name, remove_dead_code, shape_of, with_layer


def fuse_islands(mod: tvm.IRModule) -> tvm.IRModule:
    """Return the module in which only `R.call_tir` and `R.reshape` are left."""
    return lower_islands(IslandFuser(mod))


def lower_islands(fuser: IslandFuser) -> tvm.IRModule:
    """Run `fuser` and turn the islands that it made into one PrimFunc each."""
    mod = fuser.run()
    if not fuser.islands:
        return mod
    layers = {
        value.op.name_hint: layer_of(value)
        for _, value in bindings_of(mod)
        if isinstance(value, relax.Call) and isinstance(value.op, tvm.ir.GlobalVar)
    }
    return _CallFinisher(remove_dead_code(_lower_islands(mod, fuser.islands)), layers).run()


def _lower_islands(mod: tvm.IRModule, islands: dict[tvm.ir.GlobalVar, relax.Function]) -> tvm.IRModule:
    """Legalize the island functions alone (reshapes in main stay free) and fuse each into one PrimFunc."""
    legal = relax.transform.LegalizeOps()(tvm.IRModule(islands))
    functions = {gv: func for gv, func in mod.functions.items() if gv not in islands}
    merged = tvm.IRModule({**functions, **dict(legal.functions.items())})
    return relax.transform.FuseTIR()(merged)


class _CallFinisher(Rewriter):
    """Gives every call of an island its layer back (FuseTIR forgets spans); equal islands share one function."""

    def __init__(self, mod: tvm.IRModule, layers: dict[str, str]) -> None:
        super().__init__(mod)
        self.layers = layers
        self.by_signature: dict[str, list[tvm.ir.GlobalVar]] = {}

    def rewrite(self, value: relax.Expr, var: relax.Var) -> relax.Expr | None:
        if op_name(value) != "call_tir" or value.args[0].name_hint not in self.layers:
            return None
        shared = self.shared(value.args[0])
        call = relax.Call(value.op, [shared, *value.args[1:]], value.attrs, value.ty_args)
        return with_layer(call, self.layers[value.args[0].name_hint])

    def shared(self, island: tvm.ir.GlobalVar) -> tvm.ir.GlobalVar:
        """Return the first island that has the same code."""
        func = self.mod[island]
        candidates = self.by_signature.setdefault(str([param.ty for param in func.params]), [])
        for other in candidates:
            if structural_equal(self.mod[other], func):
                return other
        candidates.append(island)
        return island


class IslandFuser(Rewriter):
    """Cuts main into functions, each of which makes one stored tensor from stored tensors."""

    def __init__(self, mod: tvm.IRModule) -> None:
        super().__init__(mod)
        self.islands: dict[tvm.ir.GlobalVar, relax.Function] = {}

    def rewrite(self, value: relax.Expr, var: relax.Var) -> relax.Expr | None:
        if isinstance(value, relax.TupleGetItem) and op_name(self.lookup(value.tuple_value)) == "split":
            part = self.emit(self.slice_of_split(value))
            return part if str(var.ty.dtype) == "float32" else self.island(part)
        if not isinstance(value, relax.Call) or op_name(value) in ("reshape", "call_tir", "call_tir_inplace"):
            return None
        if isinstance(var.ty, relax.TensorType) and str(var.ty.dtype) != "float32":
            if op_name(value) == "quantize" and str(value.attrs.out_dtype) == "int16":
                value = self.within_wide_range(value)
            return self.island(self.emit(value))
        return None

    def within_wide_range(self, value: relax.Call) -> relax.Call:
        """Return a quantization to a wide tensor that saturates at its 12 bits and not at those of int16."""
        params = quantization_of(value)
        low, high = ((bound - params.zero_point) * params.scale for bound in (WIDE_QMIN, WIDE_QMAX))
        clipped = self.emit(relax.op.clip(value.args[0], low, high))
        return relax.Call(value.op, [clipped, *value.args[1:]], value.attrs, value.ty_args)

    def slice_of_split(self, part: relax.TupleGetItem) -> relax.Call:
        """Return the one part alone: an island has one result, and its other parts would be computed for nothing."""
        split = self.lookup(part.tuple_value)
        axis = int(split.attrs.axis) % len(shape_of(split.args[0]))
        widths = [int(field.shape.values[axis]) for field in part.tuple_value.ty.fields]
        begin = sum(widths[: part.index])
        return relax.op.strided_slice(split.args[0], [axis], [begin], [begin + widths[part.index]])

    def finish(self, result: relax.Expr) -> relax.Expr:
        """A float result that no kernel wrote is an island of its own."""
        bound = self.lookup(result)
        if op_name(bound) not in ("", "call_tir", "call_tir_inplace", "reshape"):
            return self.emit(self.island(result))
        return result

    def island(self, root: relax.Expr) -> relax.Expr:
        """Return a call of a new function that computes `root` from tensors that exist between kernels."""
        members: list[relax.Var] = []
        inputs: list[relax.Expr] = []
        self.collect(root, members, inputs, top=True)
        params = {arg: relax.Var(f"p{i}", arg.ty) for i, arg in enumerate(inputs)}
        builder = relax.BlockBuilder()
        local: dict[relax.Expr, relax.Expr] = dict(params)

        def convert(expr: relax.Expr) -> relax.Expr:
            if expr in local:
                return local[expr]
            if isinstance(expr, relax.Tuple):
                return relax.Tuple([convert(field) for field in expr.fields])
            return expr

        name = f"island_{len(self.islands)}"
        with builder.function(name, list(params.values()), attrs={"Primitive": True}):
            with builder.dataflow():
                for member in members:
                    bound = self.value[member]
                    if isinstance(bound, relax.TupleGetItem):
                        local[member] = builder.emit(relax.TupleGetItem(convert(bound.tuple_value), bound.index))
                    else:
                        args = [convert(arg) for arg in bound.args]
                        local[member] = builder.emit(relax.Call(bound.op, args, bound.attrs, bound.ty_args))
                result = builder.emit_output(local[root])
            builder.emit_func_output(result)
        func = builder.finalize()[name]
        gv = self.builder.add_func(func, name)
        self.islands[gv] = func
        return relax.Call(gv, inputs)

    def is_written(self, expr: relax.Var) -> bool:
        """Return whether the variable is main's input or a kernel's result."""
        bound = self.value.get(expr)
        is_island = isinstance(bound, relax.Call) and isinstance(bound.op, tvm.ir.GlobalVar)
        return bound is None or is_island or op_name(bound) in ("call_tir", "call_tir_inplace")

    def is_stored(self, expr: relax.Var) -> bool:
        """Return whether the variable exists between kernels."""
        return isinstance(expr.ty, relax.TensorType) and str(expr.ty.dtype) != "float32"

    def collect(self, expr: relax.Expr, members: list[relax.Var], inputs: list[relax.Expr], top: bool = False) -> None:
        """Gather the float bindings behind `expr` in order, and the tensors they start from."""
        if isinstance(expr, relax.Tuple):
            for field in expr.fields:
                self.collect(field, members, inputs)
            return
        if isinstance(expr, Constant):
            if expr.ty.shape is not None and len(expr.ty.shape.values) > 0 and expr not in inputs:
                inputs.append(expr)
            return
        if not isinstance(expr, relax.Var) or expr in members or expr in inputs:
            return
        if self.is_written(expr) or (self.is_stored(expr) and not top):
            inputs.append(expr)
            return
        bound = self.value[expr]
        for arg in [bound.tuple_value] if isinstance(bound, relax.TupleGetItem) else bound.args:
            self.collect(arg, members, inputs)
        members.append(expr)
