"""Schedules: how each kernel's loops are tiled, vectorised and split over cores, per instruction set."""

from __future__ import annotations

from .default import instruction_level, schedule_kernel, space_of
from .space import Decisions, Knob, Space

__all__ = ["Decisions", "Knob", "Space", "instruction_level", "schedule_kernel", "space_of"]
