"""Every step of a program bound to one lowered kernel; steps with structurally equal kernels share a C function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tvm import tirx
from tvm.target import Target
from tvm_ffi import structural_equal, structural_hash

from edgenext_tvm.codegen.plain_c import PlainKernel, lower_kernel
from edgenext_tvm.codegen.plan import MemoryPlan, plan_memory, share_memory
from edgenext_tvm.codegen.program import ConstantRef, Operand, Program, Step, ValueRef
from edgenext_tvm.errors import UserError
from edgenext_tvm.kernels.packing import Packing, packings_of

Schedule = Callable[[tirx.PrimFunc], tirx.PrimFunc]
"""Unscheduled PrimFunc -> scheduled PrimFunc with the same parameters, except those it declares as packed."""


@dataclass(frozen=True)
class HoistedRef:
    """An operand that is the step's n-th workspace added by lowering."""

    index: int


@dataclass(frozen=True)
class LoweredStep:
    """A step, its kernel, and what each of the kernel's pointers stands for."""

    step: Step
    kernel: PlainKernel
    operands: tuple[Operand | HoistedRef, ...]


@dataclass(frozen=True)
class LoweredProgram:
    """A program for one target: steps in order, distinct kernels in order of first use, and the arena's plan.

    constants  the program's, followed by those that kernels of this target read packed; operands refer to these
    """

    program: Program
    steps: tuple[LoweredStep, ...]
    kernels: tuple[PlainKernel, ...]
    plan: MemoryPlan
    constants: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class _Signature:
    """How a step uses a function's parameters: their operands, which are written, which are one pointer."""

    operands: tuple[Operand, ...]
    written: tuple[int, ...]
    merged: tuple[tuple[int, int], ...]


def _signature(step: Step, num_params: int, shared: dict[int, int]) -> _Signature:
    inplace = dict(step.inplace)
    omitted = len(step.inputs) + len(step.outputs) > num_params
    operands: list[Operand] = list(step.inputs)
    param_of_output: dict[int, int] = {}
    for index, output in enumerate(step.outputs):
        if omitted and index in inplace:
            param_of_output[index] = inplace[index]
        else:
            param_of_output[index] = len(operands)
            operands.append(ValueRef(output))
    merged = {i: param_of_output[o] for i, o in shared.items() if param_of_output[o] != i}
    return _Signature(tuple(operands), tuple(sorted(set(param_of_output.values()))), tuple(sorted(merged.items())))


def _without_name(func: tirx.PrimFunc) -> tirx.PrimFunc:
    return func.without_attr("global_symbol") if func.attrs and "global_symbol" in func.attrs else func


class _KernelPool:
    """Lowered kernels by function and signature."""

    def __init__(self, prefix: str, target: Target, schedule: Schedule) -> None:
        self.prefix, self.target, self.schedule = prefix, target, schedule
        self.found: dict[tuple, list[tuple[tirx.PrimFunc, PlainKernel]]] = {}
        self.counts: dict[str, int] = {}
        self.kernels: list[PlainKernel] = []

    def get(self, func: tirx.PrimFunc, kind: str, signature: _Signature) -> PlainKernel:
        func = _without_name(func)
        bucket = self.found.setdefault((structural_hash(func), signature.written, signature.merged), [])
        for other, kernel in bucket:
            if structural_equal(func, other):
                return kernel
        number = self.counts.get(kind, 0)
        self.counts[kind] = number + 1
        name = f"{self.prefix}_{kind}_{number}"
        scheduled = self.schedule(func.with_attr("global_symbol", name))
        kernel = lower_kernel(scheduled, name, self.target, signature.written, dict(signature.merged))
        bucket.append((func, kernel))
        self.kernels.append(kernel)
        return kernel


class _PackedConstants:
    """The program's constants, extended by packed ones as steps ask for them."""

    def __init__(self, constants: tuple[np.ndarray, ...]) -> None:
        self.constants = list(constants)
        self.found: dict[tuple[Packing, tuple[int, ...]], ConstantRef] = {}

    def pack(self, step: Step, operands: tuple[Operand, ...], packings: tuple[Packing, ...]) -> tuple[Operand, ...]:
        """The operands of `step` as its kernel reads them. UserError if a packed operand is not a constant or unfit."""
        packed = list(operands)
        for packing in packings:
            sources = [operands[source] for source in packing.sources]
            indices = tuple(ref.index for ref in sources if isinstance(ref, ConstantRef))
            if len(indices) != len(sources):
                raise UserError(
                    f"step '{step.name}' ({step.layer}) computes its weights at run time; weights must be constants. "
                    "Export the model with its parameters frozen"
                )
            key = (packing, indices)
            if key not in self.found:
                self.constants.append(self._pack_one(packing, indices, step))
                self.found[key] = ConstantRef(len(self.constants) - 1)
            packed[packing.argument] = self.found[key]
        return tuple(packed)

    def _pack_one(self, packing: Packing, indices: tuple[int, ...], step: Step) -> np.ndarray:
        try:
            return packing.pack(*(self.constants[index] for index in indices))
        except UserError as error:
            raise UserError(f"step '{step.name}' ({step.layer}): {error}") from None


def lower_program(program: Program, prefix: str, target: Target, schedule: Schedule) -> LoweredProgram:
    """Kernels named `{prefix}_{kind}_{n}`, lowered once per distinct function, and the plan of the arena."""
    shared = share_memory(program)
    pool = _KernelPool(prefix, target, schedule)
    constants = _PackedConstants(program.constants)
    steps: list[LoweredStep] = []
    for index, step in enumerate(program.steps):
        func = program.functions[step.function]
        signature = _signature(step, len(func.params), shared[index])
        kernel = pool.get(func, step.kind, signature)
        packed = constants.pack(step, signature.operands, packings_of(kernel.func))
        operands = tuple(packed[a] if a < len(packed) else HoistedRef(a - len(packed)) for a in kernel.arguments)
        steps.append(LoweredStep(step, kernel, operands))
    hoisted = {i: s.kernel.hoisted_bytes for i, s in enumerate(steps) if s.kernel.hoisted_bytes}
    plan = plan_memory(program, shared, hoisted)
    return LoweredProgram(program, tuple(steps), tuple(pool.kernels), plan, tuple(constants.constants))
