"""What executed instructions cost on a core: a model, not a measurement.

The weight of a class is how long one such instruction keeps its pipeline busy, relative to an integer addition on the
same core: the reciprocal of its throughput over the reciprocal of the addition's, for 128-bit vectors. The ratios for
Cortex-A55, A72 and A76 are rounded after the throughput columns of Arm's public Software Optimization Guides of these
cores, one figure for the many instructions of a class. Cortex-A53 has no such guide; it issues two instructions in
order like the A55 and also needs two cycles for a 128-bit load, so it gets the A55's weights. No weight was measured.
Latencies, dependences, caches and what runs at the same time in other pipelines are not modelled: costs rank similar
code on one core.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from edgenext_tvm.board import Board
from edgenext_tvm.tune.emulator.a64_classes import CLASSES, class_of
from edgenext_tvm.tune.emulator.executed_blocks import ExecutedBlock

_IN_ORDER_64 = {
    "integer": 1, "integer_multiply": 2, "integer_divide": 12, "branch": 1,
    "load": 2, "store": 2, "simd_load": 4, "simd_load_multiple": 8, "simd_store": 2, "simd_store_multiple": 4,
    "simd_multiply": 2, "simd_multiply_long": 2, "simd_dot": 2, "simd_other": 2, "fp": 2, "fp_divide": 40,
}  # fmt: skip

WEIGHTS: dict[str, dict[str, float]] = {
    "cortex-a53": {**_IN_ORDER_64},
    "cortex-a55": {**_IN_ORDER_64},
    # two integer pipes, two vector pipes of which one multiplies, one load and one store pipe
    "cortex-a72": {
        "integer": 1, "integer_multiply": 2, "integer_divide": 16, "branch": 1,
        "load": 2, "store": 2, "simd_load": 2, "simd_load_multiple": 4, "simd_store": 4, "simd_store_multiple": 8,
        "simd_multiply": 4, "simd_multiply_long": 2, "simd_dot": 2, "simd_other": 1, "fp": 2, "fp_divide": 36,
    },
    # three integer pipes, two vector pipes of which one multiplies, two load and two store pipes
    "cortex-a76": {
        "integer": 1, "integer_multiply": 3, "integer_divide": 20, "branch": 1,
        "load": 1.5, "store": 1.5, "simd_load": 1.5, "simd_load_multiple": 3, "simd_store": 1.5,
        "simd_store_multiple": 3,
        "simd_multiply": 6, "simd_multiply_long": 3, "simd_dot": 1.5, "simd_other": 1.5, "fp": 1.5, "fp_divide": 30,
    },
}  # fmt: skip


class CostModel(Protocol):
    """Turns what ran into one number, the smaller the better."""

    def cost(self, blocks: Sequence[ExecutedBlock]) -> float:
        """The cost of one run of `blocks`, in units of the model."""

    def describe(self) -> dict[str, Any]:
        """What the numbers are, as JSON values."""


@dataclass(frozen=True)
class WeightedClasses:
    """Sum over the classes of A64 instructions: weight times executed instructions."""

    core: str
    weights: Mapping[str, float]

    def __post_init__(self) -> None:
        assert self.weights.keys() == set(CLASSES), set(CLASSES) ^ self.weights.keys()

    def cost(self, blocks: Sequence[ExecutedBlock]) -> float:
        """See CostModel.cost."""
        return sum(self.weights[name] * count for name, count in count_classes(blocks).items())

    def describe(self) -> dict[str, Any]:
        """See CostModel.describe."""
        return {"cost_model": f"weights of {self.core}", "weights": dict(self.weights)}


@dataclass(frozen=True)
class PlainCount:
    """Every executed instruction costs 1: for Armv7 and cores without weights."""

    def cost(self, blocks: Sequence[ExecutedBlock]) -> float:
        """See CostModel.cost."""
        return float(sum(block.instructions * block.executions for block in blocks))

    def describe(self) -> dict[str, Any]:
        """See CostModel.describe."""
        return {"cost_model": "every instruction counts 1"}


def count_classes(blocks: Sequence[ExecutedBlock]) -> Counter[str]:
    """Executed A64 instructions by class."""
    counts: Counter[str] = Counter()
    for block in blocks:
        code = memoryview(block.code)[: 4 * block.instructions].cast("B")
        for at in range(0, len(code), 4):
            counts[class_of(int.from_bytes(code[at : at + 4], "little"))] += block.executions
    return counts


def cost_model_for(board: Board) -> CostModel:
    """The weights of the board's core, or a plain count where there are none."""
    core = board.cpu.core.lower()
    if board.isa == "aarch64" and core in WEIGHTS:
        return WeightedClasses(core, WEIGHTS[core])
    return PlainCount()
