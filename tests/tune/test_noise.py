"""The spread of equal candidates, by arithmetic on known times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from edgenext_tvm.errors import UserError
from edgenext_tvm.tune.measure import Candidate, Measurement
from edgenext_tvm.tune.noise import measure_noise, noise_of


class Replay:
    """Measures by repeating what was once measured."""

    name, unit, parallel = "replay", "s", 1

    def __init__(self, *measurements: Measurement) -> None:
        self.measurements = list(measurements)

    def describe(self) -> dict[str, Any]:
        return {}

    def measure(self, batch: Sequence[Candidate]) -> list[Measurement]:
        return self.measurements[: len(batch)]

    def close(self) -> None:
        pass


def test_the_spread_is_that_of_the_medians_relative_to_their_median() -> None:
    noise = noise_of([Measurement((1.0, 1.0, 9.0)), Measurement((1.1, 1.1, 1.1)), Measurement((1.0, 1.2, 1.3))])
    assert noise.seconds == (1.0, 1.1, 1.2)
    assert noise.relative == pytest.approx(0.2 / 1.1)
    assert noise.of_rounds == pytest.approx(0.25)
    assert str(noise) == "A/A noise 18.2 % over 3 copies, 25.0 % over the rounds of one"


def test_a_failed_check_says_why(candidates: list[Candidate]) -> None:
    with pytest.raises(UserError, match=r"^the A/A check failed: crashed: Segmentation fault$"):
        measure_noise(Replay(Measurement((1.0,)), Measurement((), "crashed: Segmentation fault")), candidates[0], 2)


def test_one_copy_has_no_spread(candidates: list[Candidate]) -> None:
    with pytest.raises(UserError, match="needs at least 2 copies, not 1"):
        measure_noise(Replay(), candidates[0], copies=1)
