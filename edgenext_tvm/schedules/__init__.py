"""Schedules: how each kernel's loops are tiled, vectorised and split over cores, per instruction set."""

from __future__ import annotations

from .default import schedule_kernel

__all__ = ["schedule_kernel"]
