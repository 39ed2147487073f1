"""One static C program per batch of candidates: built here, run wherever the board is, its lines read back."""

from __future__ import annotations

from .build_batch import BatchBuilder, BuiltBatch
from .run_batch import Ended, TimingOptions, measure_times

__all__ = ["BatchBuilder", "BuiltBatch", "Ended", "TimingOptions", "measure_times"]
