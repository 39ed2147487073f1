"""The floor of every layer and the gap that is left above it: what to make faster next.

Of this machine the floor is a time: the greater of multiply-adds over the core's peak and bytes over the bandwidth of
the nearest memory level that holds them. Under an emulator it is a number of instructions: multiply-adds and bytes each
over what one instruction does at most, added, since no instruction does both. Both are lower bounds: no
requantization, no address, no loop is part of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgenext_tvm.board import Board
from edgenext_tvm.codegen.program import ConstantRef, Program, Step
from edgenext_tvm.errors import UserError
from edgenext_tvm.kernels import Add, Depthwise, Lut, XcaApply, XcaScores
from edgenext_tvm.kernels.base import Kernel, TensorType, kernel_of
from edgenext_tvm.report.host_peak import HostPeak

POINTWISE_KINDS = ("dense", "inverted_bottleneck")


@dataclass(frozen=True)
class InstructionPeak:
    """What one instruction of a core does at most."""

    macs_per_instruction: float
    bytes_per_instruction: float

    @classmethod
    def of_board(cls, board: Board) -> InstructionPeak:
        """From the board's file; UserError where it does not say."""
        cpu = board.cpu
        if cpu.int8_macs_per_instruction is None or cpu.bytes_per_instruction is None:
            raise UserError(
                f"board '{board.name}' does not say what an instruction does at most; add int8_macs_per_instruction "
                f"and bytes_per_instruction to [cpu] in its board.toml, for example 16 and 32 for a core with dotprod, "
                "and compile again"
            )
        return cls(cpu.int8_macs_per_instruction, cpu.bytes_per_instruction)

    def to_dict(self) -> dict[str, Any]:
        return vars(self)


Peak = HostPeak | InstructionPeak


class _AboveFloor:
    floor: float
    measured: float

    @property
    def gap(self) -> float:
        """What is left to gain at most."""
        return self.measured - self.floor

    @property
    def share_of_roofline(self) -> float:
        """1 where nothing is left to gain."""
        return self.floor / self.measured if self.measured else 1.0

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "gap": self.gap, "share_of_roofline": self.share_of_roofline}


@dataclass(frozen=True)
class LayerGap(_AboveFloor):
    """One step of a build. floor and measured in the roofline's unit; bound: what the floor is made of, mostly."""

    layer: str
    kernel: str
    detail: str
    macs: int
    moved_bytes: int
    bound: str
    floor: float
    measured: float


@dataclass(frozen=True)
class Total(_AboveFloor):
    """Layers added up."""

    name: str
    steps: int
    macs: int
    floor: float
    measured: float


@dataclass(frozen=True)
class Roofline:
    """A build held against its core. unit: "us" or "instructions"; layers in order of execution; rest: measured
    outside of kernels, where that is known.
    """

    unit: str
    peak: Peak
    layers: tuple[LayerGap, ...]
    rest: float = 0.0

    @property
    def total(self) -> Total:
        return _total("all kernels", self.layers)

    @property
    def pointwise(self) -> Total:
        """Matrix products alone: the part that multiplies most."""
        return _total("pointwise layers", [x for x in self.layers if x.kernel in POINTWISE_KINDS])

    @property
    def kinds(self) -> list[Total]:
        """Per kind of kernel, largest gap first."""
        names = dict.fromkeys(layer.kernel for layer in self.layers)
        totals = [_total(name, [x for x in self.layers if x.kernel == name]) for name in names]
        return sorted(totals, key=lambda total: -total.gap)

    @property
    def by_gap(self) -> list[LayerGap]:
        """Largest gap first."""
        return sorted(self.layers, key=lambda layer: -layer.gap)

    def to_dict(self) -> dict[str, Any]:
        return {
            "unit": self.unit,
            "peak": self.peak.to_dict(),
            "total": self.total.to_dict(),
            "pointwise": self.pointwise.to_dict(),
            "rest": self.rest,
            "kinds": [total.to_dict() for total in self.kinds],
            "layers": [
                layer.to_dict() | {"share_of_gap": layer.gap / self.total.gap if self.total.gap else 0.0}
                for layer in self.by_gap
            ],
        }


def _total(name: str, layers: Sequence[LayerGap]) -> Total:
    return Total(
        name,
        len(layers),
        sum(layer.macs for layer in layers),
        sum(layer.floor for layer in layers),
        sum(layer.measured for layer in layers),
    )


def floor_us(peak: HostPeak, macs: int, moved_bytes: int) -> tuple[float, str]:
    """(least time in us, "multiply" or the memory level that bounds it)."""
    level = peak.bandwidth(moved_bytes)
    multiply, move = 1e6 * macs / peak.macs_per_s, 1e6 * moved_bytes / level.bytes_per_s
    return (multiply, "multiply") if multiply >= move else (move, level.name)


def floor_instructions(peak: InstructionPeak, macs: int, moved_bytes: int) -> tuple[float, str]:
    """(least number of instructions, "multiply" or "move": the larger part)."""
    multiply, move = macs / peak.macs_per_instruction, moved_bytes / peak.bytes_per_instruction
    return multiply + move, "multiply" if multiply >= move else "move"


def moved_bytes(program: Program, step: Step) -> int:
    """Bytes that the step must read or write at least once: operands and results, without scratch and without channels
    that its kernel leaves alone.
    """
    kernel = kernel_of(program.functions[step.function])
    if kernel is not None:
        return kernel_bytes(kernel)
    read = sum(
        program.constants[operand.index].nbytes
        if isinstance(operand, ConstantRef)
        else program.values[operand.id].size_bytes
        for operand in step.inputs
    )
    return read + sum(program.values[result].size_bytes for result in step.results)


def kernel_bytes(kernel: Kernel) -> int:
    """`moved_bytes` of a kernel by its description."""
    inputs, outputs = kernel.input_types(), kernel.output_types()
    outputs = outputs[: len(outputs) - kernel.num_workspaces]
    if isinstance(kernel, (Lut, Depthwise)):
        # the last input of an in-place kernel is its output before the call, of which nothing is read
        inputs = inputs[:-1] if kernel.inplace else inputs
        return (
            _bytes(inputs[:1]) * kernel.c // kernel.x_channels
            + _bytes(inputs[1:])
            + _bytes(outputs) * kernel.c // kernel.y_channels
        )
    if isinstance(kernel, Add):
        return 2 * kernel.t * kernel.c + _bytes(inputs[2:]) + _bytes(outputs)
    if isinstance(kernel, (XcaScores, XcaApply)):
        # of [q | k | v] scores read q and k, and v is left for the product
        parts = 2 if isinstance(kernel, XcaScores) else 1
        return parts * kernel.t * kernel.c + _bytes(inputs[1:]) + _bytes(outputs)
    return _bytes(inputs) + _bytes(outputs)


def _bytes(types: Sequence[TensorType]) -> int:
    return sum(math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in types)


def hold_against(
    peak: Peak, program: Program, details: Sequence[str], measured: Sequence[float], rest: float = 0.0
) -> Roofline:
    """Each step of `program` beside its floor. details and measured (us or instructions): one per step."""
    layers = []
    for step, detail, value in zip(program.steps, details, measured, strict=True):
        moved = moved_bytes(program, step)
        if isinstance(peak, HostPeak):
            floor, bound = floor_us(peak, step.macs, moved)
        else:
            floor, bound = floor_instructions(peak, step.macs, moved)
        layers.append(LayerGap(step.layer, step.kind, detail, step.macs, moved, bound, floor, value))
    return Roofline("us" if isinstance(peak, HostPeak) else "instructions", peak, tuple(layers), rest)


def instructions_of_steps(functions: Sequence[str], counted: Mapping[str, int]) -> list[float]:
    """Instructions per step from those per function: calls of one function execute equally many."""
    calls = {name: functions.count(name) for name in set(functions)}
    return [counted.get(name, 0) / calls[name] for name in functions]
