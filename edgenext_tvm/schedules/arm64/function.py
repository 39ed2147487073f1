"""Builds a kernel's function as straight vector code: same name, parameters and attributes, packed arguments apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx import Expr
from tvm.tirx.script.builder import ir as T

from ...kernels.packing import Packing, with_packings

Body = Callable[..., None]


def build_function(
    func: tirx.PrimFunc,
    body: Body,
    packings: Sequence[Packing] = (),
    packed_shapes: Mapping[int, Sequence[int]] | None = None,
    packed_dtypes: Mapping[int, str] | None = None,
) -> tirx.PrimFunc:
    """Return a function like `func` whose statements `body` emits; it receives one buffer per parameter, by name.

    packed_shapes {parameter: shape} and packed_dtypes {parameter: dtype} replace those of the packed parameters.
    """
    shapes, dtypes = dict(packed_shapes or {}), dict(packed_dtypes or {})
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("main")
        buffers = {}
        for index, param in enumerate(func.params):
            shape = shapes.get(index, [int(extent) for extent in param.ty.shape])
            buffers[param.name] = T.arg(param.name, T.buffer(tuple(shape), dtypes.get(index, str(param.ty.dtype))))
        body(**buffers)
    built = builder.get().with_attrs(func.attrs)
    return with_packings(built, packings) if packings else built


def bind(value: Expr, name: str = "v") -> tirx.Var:
    """Emit a name for a value that is used more than once; return the name."""
    variable = T.bind(value)
    IRBuilder.name(name, variable)
    return variable


@contextmanager
def loop(extent: int, name: str, parallel: bool = False) -> Iterator[Expr]:
    """Emit a loop; one of extent 1 that is not parallel vanishes."""
    if extent == 1 and not parallel:
        yield tirx.IntImm("int32", 0)
        return
    with (T.parallel if parallel else T.serial)(extent) as variable:
        IRBuilder.name(name, variable)
        yield variable


class Registers:
    """Vectors that statements update; LLVM keeps them in registers, since every index is a constant."""

    def __init__(self, name: str, count: int, dtype: str) -> None:
        scalar, _, lanes = dtype.partition("x")
        self.dtype, self.lanes, self.count = dtype, int(lanes), count
        self.buffer = T.alloc_buffer((count * self.lanes,), scalar)
        IRBuilder.name(name, self.buffer)

    def get(self, index: int) -> Expr:
        """The value of vector `index`."""
        return self.buffer.vload([index * self.lanes], self.dtype)

    def set(self, index: int, value: Expr) -> None:
        """Emit an assignment."""
        T.buffer_store(self.buffer, value, [tirx.Ramp(index * self.lanes, 1, self.lanes)])


def store_vector(buffer: tirx.Buffer, indices: Sequence[Expr | int], value: Expr, lanes: int) -> None:
    """Emit a store of `lanes` neighbours along the last axis."""
    T.buffer_store(buffer, value, [*indices[:-1], tirx.Ramp(indices[-1], 1, lanes)])
