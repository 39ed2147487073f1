"""Counts executed Arm instructions exactly, by function or by cost: the yardstick where no board is at hand."""

from __future__ import annotations

from .cost_model import CostModel, PlainCount, WeightedClasses, cost_model_for
from .count import InstructionCounts, count_inference, count_program
from .measurer import EmulatorMeasurer

__all__ = [
    "CostModel",
    "EmulatorMeasurer",
    "InstructionCounts",
    "PlainCount",
    "WeightedClasses",
    "cost_model_for",
    "count_inference",
    "count_program",
]
