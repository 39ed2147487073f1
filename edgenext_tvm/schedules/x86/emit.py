"""What the AVX-512 builders share: whole functions written with vector loads, stores and registers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx import Expr
from tvm.tirx.script.builder import ir as T

from ...kernels import Kernel
from ...kernels.packing import Packing, with_packings

LANES = 16
"""int32 or float32 elements of a vector."""


def build_function(
    kernel: Kernel,
    func: tirx.PrimFunc,
    body: Callable[..., None],
    packed: Sequence[tuple[Packing, tuple[tuple[int, ...], str]]] = (),
) -> tirx.PrimFunc:
    """Return a function with the parameters and attributes of `func` whose body is what `body` emits.

    packed: (packing, (shape, dtype)) of each argument that is read in another layout.
    """
    types = kernel.input_types() + kernel.output_types()
    for packing, type_ in packed:
        types[packing.argument] = type_
    with IRBuilder() as builder, T.prim_func():
        T.func_name("main")
        names = [param.name for param in func.params]
        body(*[T.arg(name, T.buffer(shape, dtype)) for name, (shape, dtype) in zip(names, types, strict=True)])
    # Without the mark of schedulable functions: there are no blocks whose buffers could shrink, and looking takes long.
    attributes = {key: value for key, value in func.attrs.items() if key != "s_tir"}
    built = builder.get().with_attrs(attributes)
    return with_packings(built, [packing for packing, _ in packed]) if packed else built


def load(buffer: tirx.Buffer, indices: Sequence[Expr | int], lanes: int) -> Expr:
    """Return `lanes` consecutive elements from `indices` along the last axis."""
    *outer, first = indices
    return buffer[(*outer, tirx.Ramp(_index(first), 1, lanes) if lanes > 1 else first)]


def store(buffer: tirx.Buffer, indices: Sequence[Expr | int], value: Expr, lanes: int) -> None:
    """Emit the store of `lanes` consecutive elements from `indices` along the last axis."""
    *outer, first = indices
    T.buffer_store(buffer, value, [*outer, tirx.Ramp(_index(first), 1, lanes) if lanes > 1 else first])


def _index(value: Expr | int) -> Expr:
    return tirx.const(value, "int32") if isinstance(value, int) else value


class Register:
    """One vector that changes: a stack buffer of its own that LLVM keeps in a register."""

    def __init__(self, name: str, dtype: str = "int32", lanes: int = LANES) -> None:
        self.lanes = lanes
        self.buffer = T.alloc_buffer((lanes,), dtype)
        IRBuilder.name(name, self.buffer)

    def set(self, value: Expr) -> None:
        """Emit the assignment."""
        store(self.buffer, [0], value, self.lanes)

    def get(self) -> Expr:
        """Return the current value."""
        return load(self.buffer, [0], self.lanes)


def bind(name: str, value: Expr) -> tirx.Var:
    """Emit a value computed here once."""
    variable = T.bind(value)
    IRBuilder.name(name, variable)
    return variable
