"""What there is to tune in a model: its distinct kernels, weights apart, with how often each is called."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import tvm
from tvm import tirx
from tvm_ffi import structural_equal, structural_hash

from edgenext_tvm.board import Board
from edgenext_tvm.codegen.program import read_program
from edgenext_tvm.kernels import KERNEL_ATTR, kernel_of
from edgenext_tvm.schedules.default import space_of
from edgenext_tvm.schedules.space import Space


def canonical(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Return `func` under the name that databases know every kernel by."""
    return func.with_attr("global_symbol", "main")


def kernel_key(func: tirx.PrimFunc) -> str:
    """Return what identifies a kernel in manifests: its description, equal for equal kernels; "" if it has none."""
    return str((func.attrs or {}).get(KERNEL_ATTR, ""))


@dataclass(frozen=True, eq=False)
class Task:
    """One distinct kernel of a model.

    func    canonical and unscheduled
    calls   how often one inference calls it
    layers  PyTorch modules that it computes, each once, in order
    macs    multiply-accumulates of one call
    """

    func: tirx.PrimFunc
    space: Space
    calls: int
    layers: tuple[str, ...]
    macs: int

    @property
    def key(self) -> str:
        """See `kernel_key`."""
        return kernel_key(self.func)

    @cached_property
    def size(self) -> int:
        """Points of its space."""
        return sum(1 for _ in self.space.points())

    @property
    def name(self) -> str:
        """A short line for people: kind and shapes, without what says nothing.

        That is no padding, strides and batches of 1, and dtypes that are not int16.
        """
        kernel = kernel_of(self.func)
        if kernel is None:
            return "generic"
        plain = {"n": 1, "stride_h": 1, "stride_w": 1, "epilogue": "none"}
        shown = [
            f"{key}={value}"
            for key, value in dataclasses.asdict(kernel).items()
            if plain.get(key) != value
            and not (key.startswith("pad_") and value == 0)
            and not (key.endswith("dtype") and value != "int16")
        ]
        return " ".join([kernel.kind, *shown])


@dataclass(frozen=True)
class Tasks:
    """The kernels of a model: `tunable` have more than one point, `fixed` have one."""

    tunable: tuple[Task, ...]
    fixed: tuple[Task, ...]

    @property
    def all(self) -> tuple[Task, ...]:
        """Every distinct kernel."""
        return (*self.tunable, *self.fixed)


def extract_tasks(lowered: tvm.IRModule, board: Board) -> Tasks:
    """Return the distinct kernels of a lowered module (see `passes.pipeline.lower`) with their spaces on `board`.

    Kernels are equal when their functions are, names and weights apart: exactly those share a C function. UserError if
    the module is not lowered.
    """
    program = read_program(lowered)
    buckets: dict[int, list[_Found]] = {}
    order: list[_Found] = []
    for step in program.steps:
        func = canonical(program.functions[step.function])
        bucket = buckets.setdefault(structural_hash(func), [])
        found = next((f for f in bucket if structural_equal(f.func, func)), None)
        if found is None:
            found = _Found(func, [], step.macs)
            bucket.append(found)
            order.append(found)
        found.layers.append(step.layer)
    tasks = [found.task(board.isa, board.cpu.features) for found in order]
    tunable = tuple(task for task in tasks if task.size > 1)
    return Tasks(tunable, tuple(task for task in tasks if task.size <= 1))


@dataclass(frozen=True, eq=False)
class _Found:
    func: tirx.PrimFunc
    layers: list[str]
    macs: int

    def task(self, isa: str, features: Sequence[str]) -> Task:
        space = space_of(self.func, isa, features)
        return Task(self.func, space, len(self.layers), tuple(dict.fromkeys(self.layers)), self.macs)
