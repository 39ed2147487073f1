"""Every step of a program bound to one lowered kernel; steps with structurally equal kernels share a C function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx
from tvm.target import Target
from tvm_ffi import structural_equal, structural_hash

from edgenext_tvm.codegen.plain_c import PlainKernel, lower_kernel
from edgenext_tvm.codegen.plan import MemoryPlan, plan_memory, share_memory
from edgenext_tvm.codegen.program import Operand, Program, Step, ValueRef

Schedule = Callable[[tirx.PrimFunc], tirx.PrimFunc]
"""Unscheduled PrimFunc -> scheduled PrimFunc with the same parameters."""


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
    """A program for one target: steps in order, distinct kernels in order of first use, and the arena's plan."""

    program: Program
    steps: tuple[LoweredStep, ...]
    kernels: tuple[PlainKernel, ...]
    plan: MemoryPlan


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


def lower_program(program: Program, prefix: str, target: Target, schedule: Schedule) -> LoweredProgram:
    """Kernels named `{prefix}_{kind}_{n}`, lowered once per distinct function, and the plan of the arena."""
    shared = share_memory(program)
    pool = _KernelPool(prefix, target, schedule)
    steps: list[LoweredStep] = []
    for index, step in enumerate(program.steps):
        func = program.functions[step.function]
        signature = _signature(step, len(func.params), shared[index])
        kernel = pool.get(func, step.kind, signature)
        operands = tuple(
            signature.operands[a] if a < len(signature.operands) else HoistedRef(a - len(signature.operands))
            for a in kernel.arguments
        )
        steps.append(LoweredStep(step, kernel, operands))
    hoisted = {i: s.kernel.hoisted_bytes for i, s in enumerate(steps) if s.kernel.hoisted_bytes}
    plan = plan_memory(program, shared, hoisted)
    return LoweredProgram(program, tuple(steps), tuple(pool.kernels), plan)
