"""The one way that passes walk ``main``: binding by binding, in order, into a fresh dataflow block."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import tvm
from tvm import relax
from tvm.ir import GenericConst as Constant

from edgenext_tvm.kernels.base import Kernel, kernel_of
from edgenext_tvm.passes.track_tensors import Tracked, carry, tracked, with_tracked


def bindings_of(mod: tvm.IRModule) -> Iterator[tuple[relax.Var, relax.Expr]]:
    """Yield main's bindings in order of execution."""
    for block in mod["main"].body.blocks:
        for binding in block.bindings:
            yield binding.var, binding.value


def shape_of(expr: relax.Expr) -> tuple[int, ...]:
    """Return the static shape of a tensor expression."""
    return tuple(int(extent) for extent in expr.ty.shape.values)


def op_name(expr: relax.Expr) -> str:
    """Return the operator's name without its ``relax.`` prefix, or '' for anything but a call of an operator."""
    if isinstance(expr, relax.Call) and isinstance(expr.op, tvm.ir.Op):
        return expr.op.name.removeprefix("relax.")
    return ""


def split_sections(split: relax.Call) -> int | list[int]:
    """Return a split's number of equal parts, or the positions at which it splits."""
    sections = split.attrs.indices_or_sections
    return int(sections) if isinstance(sections, int | tvm.tirx.IntImm) else [int(i) for i in sections]


def layer_of(expr: relax.Expr) -> str:
    """Return the PyTorch module path in an expression's span, or ''."""
    span = getattr(expr, "span", None)
    return span.source_name.name if span is not None else ""


def with_layer(expr: relax.Expr, layer: str) -> relax.Expr:
    """Return the call with `layer` as its span; anything but a call is returned as it is."""
    if not layer or not isinstance(expr, relax.Call):
        return expr
    span = tvm.ir.Span(tvm.ir.SourceName(layer), 0, 0, 0, 0)
    return relax.Call(expr.op, expr.args, expr.attrs, expr.ty_args, span)


class Rewriter:
    """Rebuild ``main`` binding by binding; subclasses override `rewrite`.

    During the walk `value` maps each new variable to its bound expression, so that a rule sees what earlier
    rules of the same pass made of its operands. Bindings that nobody uses any more are removed at the end.
    A module in which `rewrite` changes nothing comes out structurally equal.
    """

    def __init__(self, mod: tvm.IRModule) -> None:
        self.mod = mod
        self.builder = relax.BlockBuilder(without_main(mod))
        self.value: dict[relax.Var, relax.Expr] = {}
        self.env: dict[relax.Var, relax.Expr] = {}
        self.origin: dict[relax.Var, relax.Var] = {}
        self.layer = ""
        self.uses = _readers_of(mod)
        self._reader_cache: dict[relax.Var, frozenset[relax.Var]] = {}
        self._functions: dict[Kernel, tvm.ir.GlobalVar] = {}
        self._kernels: dict[str, Kernel] = {}
        for gv, func in mod.functions.items():
            if isinstance(func, tvm.tirx.PrimFunc) and (kernel := kernel_of(func)):
                self._functions[kernel] = gv
                self._kernels[gv.name_hint] = kernel

    def rewrite(self, value: relax.Expr, var: relax.Var) -> relax.Expr | None:
        """Return the replacement of one binding's value (operands already rewritten), or None to keep it."""
        raise NotImplementedError

    def parameter(self, param: relax.Var) -> relax.Var:
        """Return the new function's parameter for `param`."""
        return param

    def run(self) -> tvm.IRModule:
        """Return the rewritten module."""
        main = self.mod["main"]
        params = [self.parameter(p) for p in main.params]
        self.env.update(zip(main.params, params, strict=True))
        before, after = tracked(self.mod), Tracked()
        for old, param in zip(main.params, params, strict=True):
            carry(before, old, param, self.value, after)
        with self.builder.function("main", params, attrs=dict(main.attrs) if main.attrs else None):
            with self.builder.dataflow():
                for var, value in bindings_of(self.mod):
                    self.layer = layer_of(value) or self.layer
                    current = self.substitute(value)
                    replacement = self.rewrite(current, var)
                    new = self.emit(current if replacement is None else replacement)
                    self.env[var] = new
                    carry(before, var, new, self.value, after)
                    if isinstance(new, relax.Var):
                        self.origin[new] = var
                last = self.finish(self.substitute(main.body.body))
                result = self.builder.emit_output(last)
                carry(after, last, result, {}, after)
            self.builder.emit_func_output(result)
        mod = remove_dead_code(self.finalize(self.builder.finalize()))
        return with_tracked(mod, after) if before else mod

    def finish(self, result: relax.Expr) -> relax.Expr:
        """Hook: last change to what main returns."""
        return result

    def finalize(self, mod: tvm.IRModule) -> tvm.IRModule:
        """Hook: last change to the module before dead code is removed."""
        return mod

    def substitute(self, expr: relax.Expr) -> relax.Expr:
        """Return `expr` with every old variable replaced by what it became."""
        if isinstance(expr, relax.Var):
            return self.env.get(expr, expr)
        if isinstance(expr, relax.Tuple):
            return relax.Tuple([self.substitute(field) for field in expr.fields])
        if isinstance(expr, relax.TupleGetItem):
            return relax.TupleGetItem(self.substitute(expr.tuple_value), expr.index)
        if isinstance(expr, relax.Call):
            args = [self.substitute(arg) for arg in expr.args]
            return relax.Call(expr.op, args, expr.attrs, expr.ty_args, expr.span)
        return expr

    def emit(self, expr: relax.Expr) -> relax.Expr:
        """Bind `expr` to a new variable (variables and constants stay themselves); keeps the current layer."""
        if isinstance(expr, relax.Var | Constant):
            return expr
        if isinstance(expr, relax.Call) and not layer_of(expr):
            expr = with_layer(expr, self.layer)
        var = self.builder.emit(expr)
        self.value[var] = expr
        return var

    def lookup(self, expr: relax.Expr) -> relax.Expr:
        """Return what a new variable is bound to; parameters, constants and unbound expressions are themselves."""
        return self.value.get(expr, expr) if isinstance(expr, relax.Var) else expr

    def reader_count(self, expr: relax.Expr) -> int:
        """Return how many stored (not float32) tensors and results a new variable's old counterpart led to."""
        return len(self._readers(self.origin[expr])) if expr in self.origin else 0

    def _readers(self, var: relax.Var) -> frozenset[relax.Var]:
        if var not in self._reader_cache:
            readers = {var} if var.same_as(self.mod["main"].body.body) else set()
            for reader in self.uses[var]:
                is_float = isinstance(reader.ty, relax.TensorType) and str(reader.ty.dtype) == "float32"
                readers |= self._readers(reader) if is_float else {reader}
            self._reader_cache[var] = frozenset(readers)
        return self._reader_cache[var]

    def reshape(self, expr: relax.Expr, shape: Sequence[int]) -> relax.Expr:
        """Emit a reshape unless `expr` has that shape already."""
        if shape_of(expr) == tuple(shape):
            return expr
        if isinstance(expr, Constant):
            return relax.const(expr.value.numpy().reshape(shape))
        return self.emit(relax.op.reshape(expr, relax.ShapeExpr(list(shape))))

    def call_kernel(self, kernel: Kernel, args: Sequence[relax.Expr | np.ndarray]) -> relax.Expr:
        """Emit a call of an integer kernel; arrays become constants, the first output is returned."""
        result = self.emit(self.kernel_call(kernel, args))
        return self.emit(relax.TupleGetItem(result, 0)) if len(kernel.output_types()) > 1 else result

    def kernel_call(self, kernel: Kernel, args: Sequence[relax.Expr | np.ndarray]) -> relax.Call:
        """Return the (unbound) call of an integer kernel, whose function is added to the module once."""
        if kernel not in self._functions:
            name = self.function_name(kernel)
            self._functions[kernel] = self.builder.add_func(kernel.prim_func(name), name)
            self._kernels[name] = kernel
        operands = relax.Tuple([relax.const(a) if isinstance(a, np.ndarray) else a for a in args])
        types = [relax.TensorType(shape, dtype) for shape, dtype in kernel.output_types()]
        func = self._functions[kernel]
        if kernel.inplace_input >= 0:
            return relax.op.call_tir_inplace(func, operands, [kernel.inplace_input], types)
        return relax.op.call_tir(func, operands, types)

    def kernel_of_call(self, expr: relax.Expr) -> Kernel | None:
        """Return the integer kernel that a call runs, or None."""
        if op_name(expr) not in ("call_tir", "call_tir_inplace"):
            return None
        return self._kernels.get(expr.args[0].name_hint)

    def function_name(self, kernel: Kernel) -> str:
        """Return a free name made of the kernel's kind and its largest shape (`dense_1024x48x192_lut`)."""
        fields = {k: v for k, v in dataclasses.asdict(kernel).items() if k in ("t", "h", "w", "ci", "c", "co", "kh")}
        name = f"{kernel.kind}_{'x'.join(str(v) for v in fields.values())}"
        epilogue = getattr(kernel, "epilogue", "none")
        name += ("" if epilogue == "none" else f"_{epilogue}") + ("_wide" if kernel.is_wide else "")
        candidates = [name, *(f"{name}_{i}" for i in range(1, len(self._kernels) + 2))]
        return next(c for c in candidates if c not in self._kernels)


def without_main(mod: tvm.IRModule) -> tvm.IRModule:
    """Return the module's other functions, under the same global variables."""
    return tvm.IRModule({gv: func for gv, func in mod.functions.items() if gv.name_hint != "main"})


def remove_dead_code(mod: tvm.IRModule) -> tvm.IRModule:
    """Return the module without bindings that nobody reads, functions that nobody calls and copies of variables."""
    mod = relax.transform.DeadCodeElimination(["main"])(mod)
    mod = relax.transform.CanonicalizeBindings()(mod)
    called = {gv.name_hint for _, value in bindings_of(mod) for gv in _callees(value)} | {"main"}
    return tvm.IRModule({gv: func for gv, func in mod.functions.items() if gv.name_hint in called})


def _callees(value: relax.Expr) -> list[tvm.ir.GlobalVar]:
    """DeadCodeElimination keeps every function that has a global symbol, as kernels have."""
    if not isinstance(value, relax.Call):
        return []
    return [expr for expr in (value.op, *value.args[:1]) if isinstance(expr, tvm.ir.GlobalVar)]


def _readers_of(mod: tvm.IRModule) -> defaultdict[relax.Var, list[relax.Var]]:
    """Return the variables whose bindings read each variable, once for each time."""
    readers: defaultdict[relax.Var, list[relax.Var]] = defaultdict(list)

    def visit(expr: relax.Expr, reader: relax.Var) -> None:
        if isinstance(expr, relax.Var):
            readers[expr].append(reader)
        elif isinstance(expr, relax.Tuple):
            for field in expr.fields:
                visit(field, reader)
        elif isinstance(expr, relax.TupleGetItem):
            visit(expr.tuple_value, reader)
        elif isinstance(expr, relax.Call):
            for arg in expr.args:
                visit(arg, reader)

    for var, value in bindings_of(mod):
        visit(value, var)
    return readers
