"""The words that all ways to measure share."""

from __future__ import annotations

import pytest

from edgenext_tvm.errors import UserError
from edgenext_tvm.tune.measure import Measurement, MeasurerLost


def test_a_measurement_has_numbers_or_an_error_never_both_nor_neither() -> None:
    assert Measurement((1e-6, 2e-6)).ok
    assert not Measurement((), "crashed").ok
    with pytest.raises(AssertionError):
        Measurement(())
    with pytest.raises(AssertionError):
        Measurement((1e-6,), "crashed")


def test_a_lost_device_is_told_with_what_it_had_measured() -> None:
    lost = MeasurerLost("lost ssh://pi@board: Connection closed", [Measurement((1e-6,))])
    assert isinstance(lost, UserError)
    assert (str(lost), lost.measurements) == ("lost ssh://pi@board: Connection closed", (Measurement((1e-6,)),))
