"""The call sequence of a lowered Relax module as plain data: what memory planning and emission work on.

A lowered module holds one Relax function `main` whose dataflow block contains only `R.call_tir`, `R.call_tir_inplace`,
`R.reshape` (a view of the same bytes), tuple projections and variable copies. `read_program` turns it into a `Program`.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax
from tvm.tirx import PrimFunc

from edgenext_tvm.codegen.aliasing import overwritable_inputs
from edgenext_tvm.errors import UserError

SUPPORTED_BINDINGS = "R.call_tir, R.call_tir_inplace, R.reshape, tuple projections and copies of variables"


@dataclass(frozen=True)
class Value:
    """One tensor in the arena; reshapes of it are the same value."""

    id: int
    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class ValueRef:
    """A step's operand that lives in the arena."""

    id: int


@dataclass(frozen=True)
class ConstantRef:
    """A step's operand that lives in .rodata: an index into `Program.constants`."""

    index: int


Operand = ValueRef | ConstantRef


@dataclass(frozen=True)
class Step:
    """One kernel call.

    inplace    (output, input): the output is that input, overwritten
    may_alias  inputs whose memory output 0 may take over if they die here
    """

    name: str
    layer: str
    function: str
    kind: str
    inputs: tuple[Operand, ...]
    outputs: tuple[int, ...]
    num_workspaces: int
    inplace: tuple[tuple[int, int], ...]
    may_alias: tuple[int, ...]
    macs: int

    @property
    def results(self) -> tuple[int, ...]:
        """Values that exist after the step (the outputs without the workspaces)."""
        return self.outputs[: len(self.outputs) - self.num_workspaces]

    @property
    def workspaces(self) -> tuple[int, ...]:
        return self.outputs[len(self.outputs) - self.num_workspaces :]


@dataclass(frozen=True)
class Program:
    """A model as a list of steps over values and constants, in execution order."""

    values: tuple[Value, ...]
    constants: tuple[np.ndarray, ...]
    steps: tuple[Step, ...]
    functions: dict[str, PrimFunc]
    input: int
    output: int


def _tensor_type(ty: relax.TensorType, where: str) -> tuple[tuple[int, ...], str]:
    if not isinstance(ty, relax.TensorType) or ty.shape is None:
        raise UserError(
            f"{where} has type {ty}; every tensor needs a static shape. Export the model with fixed input shapes."
        )
    shape = []
    for dim in ty.shape:
        if not isinstance(dim, tvm.tirx.IntImm):
            raise UserError(
                f"{where} has the symbolic dimension {dim}; shapes must be static. Export the model "
                "with fixed input shapes."
            )
        shape.append(int(dim))
    return tuple(shape), str(ty.dtype)


def _int_attr(func: PrimFunc, key: str, default: int) -> int:
    return int(func.attrs[key]) if key in func.attrs else default


def _kind_and_macs(func: PrimFunc) -> tuple[str, int]:
    description = json.loads(str(func.attrs["enx.kernel"])) if "enx.kernel" in func.attrs else {}
    if "kind" not in description:
        return "generic", _int_attr(func, "enx.macs", 0)
    if "enx.macs" in func.attrs:
        return description["kind"], int(func.attrs["enx.macs"])
    from edgenext_tvm.kernels.base import Kernel

    return description["kind"], Kernel.from_json(json.dumps(description)).macs


class _Reader:
    """Walks the bindings of `main` once, numbering values, constants and steps."""

    def __init__(self, mod: tvm.IRModule) -> None:
        self.mod = mod
        self.main = mod["main"]
        attrs = self.main.attrs
        self.layers: dict[str, str] = json.loads(str(attrs["enx.layers"])) if attrs and "enx.layers" in attrs else {}
        self.values: list[Value] = []
        self.constants: list[np.ndarray] = []
        self.steps: list[Step] = []
        self.functions: dict[str, PrimFunc] = {}
        self.may_alias: dict[str, tuple[int, ...]] = {}
        self.known: dict[relax.Var, Operand | tuple[int, ...]] = {}

    def new_value(self, name: str, ty: relax.TensorType) -> int:
        shape, dtype = _tensor_type(ty, f"tensor '{name}'")
        self.values.append(Value(len(self.values), name, shape, dtype))
        return len(self.values) - 1

    def operand(self, expr: relax.Expr) -> Operand:
        if isinstance(expr, tvm.ir.GenericConst):
            self.constants.append(np.ascontiguousarray(expr.value.numpy()))
            return ConstantRef(len(self.constants) - 1)
        found = self.known[expr]
        if isinstance(found, tuple):
            if len(found) != 1:
                raise UserError(
                    f"'{expr.name}' is a tuple of {len(found)} tensors used as one tensor; project it with [i] first"
                )
            return ValueRef(found[0])
        return found

    def read(self) -> Program:
        if len(self.main.params) != 1:
            raise UserError(
                f"main takes {len(self.main.params)} inputs; a compiled model takes exactly one image tensor"
            )
        param = self.main.params[0]
        self.known[param] = ValueRef(self.new_value(param.name, param.ty))
        for block in self.main.body.blocks:
            for binding in block.bindings:
                self.bind(binding.var, binding.value)
        output = self.operand(self.main.body.body)
        if not isinstance(output, ValueRef) or output.id == 0:
            raise UserError("main returns its input or a constant; a compiled model returns the result of a kernel")
        return Program(
            tuple(self.values),
            tuple(self.constants),
            tuple(self.steps),
            dict(self.functions),
            input=0,
            output=output.id,
        )

    def bind(self, var: relax.Var, value: relax.Expr) -> None:
        if isinstance(value, relax.Var):
            self.known[var] = self.known[value]
        elif isinstance(value, tvm.ir.GenericConst):
            self.known[var] = self.operand(value)
        elif isinstance(value, relax.TupleGetItem):
            outputs = self.known[value.tuple_value]
            if not isinstance(outputs, tuple):
                raise UserError(
                    f"'{var.name}' projects '{value.tuple_value.name}', which is not a tuple of kernel outputs"
                )
            self.known[var] = ValueRef(outputs[value.index])
        elif isinstance(value, relax.Call) and getattr(value.op, "name", "") == "relax.reshape":
            self.known[var] = self.operand(value.args[0])
        elif isinstance(value, relax.Call) and getattr(value.op, "name", "") in (
            "relax.call_tir",
            "relax.call_tir_inplace",
        ):
            self.known[var] = self.call(var, value)
        else:
            operator = getattr(getattr(value, "op", None), "name", type(value).__name__)
            layer = self.layers.get(var.name, var.name)
            raise UserError(
                f"layer '{layer}' still contains the operator '{operator}' after lowering; code can "
                "be generated for "
                f"{SUPPORTED_BINDINGS}. Report the operator, or replace it in the model."
            )

    def overwritable(self, symbol: str, func: PrimFunc, num_inputs: int) -> tuple[int, ...]:
        if symbol not in self.may_alias:
            self.may_alias[symbol] = overwritable_inputs(func, num_inputs)
        return self.may_alias[symbol]

    def call(self, var: relax.Var, call: relax.Call) -> tuple[int, ...]:
        name = var.name
        symbol = call.args[0].name_hint
        func = self.mod[call.args[0]]
        self.functions[symbol] = func
        inputs = tuple(self.operand(arg) for arg in call.args[1].fields)
        out_type = call.ty_args[0]
        fields = list(out_type.fields) if isinstance(out_type, relax.TupleType) else [out_type]
        outputs = tuple(self.new_value(name if i == 0 else f"{name}.{i}", ty) for i, ty in enumerate(fields))
        inplace: dict[int, int] = {}
        if call.op.name == "relax.call_tir_inplace":
            inplace = {o: int(i) for o, i in enumerate(call.attrs.inplace_indices) if int(i) >= 0}
        elif _int_attr(func, "enx.inplace", -1) >= 0:
            inplace = {0: _int_attr(func, "enx.inplace", -1)}
        expected = len(inputs) + len(outputs)
        if len(func.params) not in (expected, expected - len(inplace)):
            raise UserError(
                f"kernel '{symbol}' has {len(func.params)} parameters, but step '{name}' passes "
                f"{len(inputs)} inputs and "
                f"{len(outputs)} outputs; the parameters must be inputs, outputs, workspaces in this order"
            )
        kind, macs = _kind_and_macs(func)
        self.steps.append(
            Step(
                name=name,
                layer=self.layers.get(name, name),
                function=symbol,
                kind=kind,
                inputs=inputs,
                outputs=outputs,
                num_workspaces=_int_attr(func, "enx.num_workspaces", 0),
                inplace=tuple(sorted(inplace.items())),
                may_alias=() if inplace else self.overwritable(symbol, func, len(inputs)),
                macs=macs,
            )
        )
        return self.steps[-1].results


def read_program(mod: tvm.IRModule) -> Program:
    """The call sequence of `mod["main"]`; UserError naming layer and operator for what is not a kernel call."""
    return _Reader(mod).read()
