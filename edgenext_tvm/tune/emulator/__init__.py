"""Counts executed Arm instructions exactly, by function: the yardstick where no board is at hand."""

from __future__ import annotations

from .count import InstructionCounts, count_inference, count_program

__all__ = ["InstructionCounts", "count_inference", "count_program"]
