"""Builds schedulable PrimFuncs block by block, for kernels whose argument list depends on their description."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from .base import Kernel


def build_kernel(kernel: Kernel, names: Sequence[str], body: Callable[..., None]) -> tirx.PrimFunc:
    """Return the PrimFunc whose arguments are the kernel's inputs and outputs, called `names`; `body` emits blocks.

    `body` receives one buffer per argument, in order.
    """
    types = kernel.input_types() + kernel.output_types()
    assert len(types) == len(names), (names, types)
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("main")
        typed_names = zip(names, types, strict=True)
        body(*[T.arg(name, T.buffer(shape, dtype)) for name, (shape, dtype) in typed_names])
    return builder.get()


def scratch(name: str, shape: Sequence[int], dtype: str) -> tirx.Buffer:
    """Return an intermediate buffer; a schedule shrinks it to the tile where it is used."""
    buffer = T.sblock_alloc_buffer(tuple(shape), dtype)
    IRBuilder.name(name, buffer)
    return buffer


def store(buffer: tirx.Buffer, indices: Sequence[tirx.Expr | int], value: tirx.Expr) -> None:
    """Emit buffer[indices] = value."""
    T.buffer_store(buffer, value, list(indices))


@contextmanager
def block(
    name: str, axes: str, extents: Sequence[int], shared: tuple[tirx.Var, int] | None = None
) -> Iterator[list[tirx.Var]]:
    """Emit one loop per extent and inside them block `name`; yields its axes ("S" spatial or "R" reduced each).

    `shared` is the (variable, extent) of an open `shared_loop`; it becomes the first, spatial axis.
    """
    with T.grid(*extents) as loops:
        loop_list = list(loops) if isinstance(loops, (list, tuple)) or len(extents) > 1 else [loops]
        for index, loop in enumerate(loop_list):
            IRBuilder.name(f"i{index}", loop)
        with T.sblock(name):
            axis_list = [] if shared is None else [T.axis.spatial(shared[1], shared[0])]
            axis_vars = T.axis.remap(axes, loop_list)
            axis_list += list(axis_vars) if len(extents) > 1 else [axis_vars]
            for index, axis in enumerate(axis_list):
                IRBuilder.name(f"v{index}", axis)
            yield axis_list


@contextmanager
def shared_loop(extent: int) -> Iterator[tuple[tirx.Var, int]]:
    """Emit one loop that several blocks share; pass what it yields to each of them."""
    with T.serial(extent) as variable:
        IRBuilder.name("shared", variable)
        yield variable, extent


@contextmanager
def reduction_init() -> Iterator[None]:
    """Emit what a reduction block does before its first step."""
    with T.init():
        yield
