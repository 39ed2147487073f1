"""How far apart measurements of one and the same candidate lie: differences below that mean nothing."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from ..errors import UserError
from .measure import Candidate, Measurement, Measurer


@dataclass(frozen=True)
class Noise:
    """Of an A/A check: one candidate under several names in one batch.

    seconds    the median of each copy's rounds
    relative   (largest - least) / median of `seconds`: how much faster a copy seemed than another for no reason
    of_rounds  the same within a copy, over its rounds, at its median over the copies
    """

    seconds: tuple[float, ...]
    relative: float
    of_rounds: float

    def __str__(self) -> str:
        return (
            f"A/A noise {100 * self.relative:.1f} % over {len(self.seconds)} copies, "
            f"{100 * self.of_rounds:.1f} % over the rounds of one"
        )


def measure_noise(measurer: Measurer, candidate: Candidate, copies: int = 8) -> Noise:
    """Measure `candidate` `copies` times (at least 2) in one batch. UserError if it cannot be measured."""
    if copies < 2:
        raise UserError(f"an A/A check needs at least 2 copies, not {copies}")
    measured = measurer.measure([candidate] * copies)
    failed = [measurement.error for measurement in measured if measurement.error is not None]
    if failed:
        raise UserError(f"the A/A check failed: {failed[0]}")
    return noise_of(measured)


def noise_of(measured: list[Measurement]) -> Noise:
    """The spread of measurements of equal candidates."""
    medians = [statistics.median(measurement.seconds) for measurement in measured]
    rounds = [_spread(measurement.seconds) for measurement in measured]
    return Noise(tuple(medians), _spread(medians), statistics.median(rounds))


def _spread(values: list[float] | tuple[float, ...]) -> float:
    return (max(values) - min(values)) / statistics.median(values)
