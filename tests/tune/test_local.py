"""Real candidates timed on this machine; those that hang, crash or cannot be built cost only themselves."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from edgenext_tvm.board import Board, load_board
from edgenext_tvm.errors import UserError
from edgenext_tvm.kernels import Dense
from edgenext_tvm.tune.local import LocalMeasurer
from edgenext_tvm.tune.measure import Candidate
from edgenext_tvm.tune.measure_program import TimingOptions
from edgenext_tvm.tune.noise import measure_noise

ROUNDS = 4


@pytest.fixture(scope="module")
def measurer(host: Board) -> Iterator[LocalMeasurer]:
    measurer = LocalMeasurer(host, TimingOptions(rounds=ROUNDS, min_ms=1, limit_ms=300), build_workers=1)
    yield measurer
    measurer.close()


def test_every_candidate_gets_a_time_a_round(measurer: LocalMeasurer, candidates: list[Candidate]) -> None:
    for measurement in measurer.measure(candidates):
        assert measurement.error is None
        assert len(measurement.seconds) == ROUNDS
        assert all(1e-9 < seconds < 1e-3 for seconds in measurement.seconds)


def test_times_grow_with_the_work(
    measurer: LocalMeasurer, host: Board, dense_candidates: Callable[..., list[Candidate]]
) -> None:
    small, large = (dense_candidates(host, 1, Dense(t, 64, 64))[0] for t in (8, 512))
    least = [min(measurement.seconds) for measurement in measurer.measure([small, large])]
    # 64 times the work
    assert 20 < least[1] / least[0] < 200


def test_a_candidate_that_fails_does_not_stop_the_others(
    measurer: LocalMeasurer,
    candidates: list[Candidate],
    hanging: Candidate,
    crashing: Candidate,
    killing: Candidate,
    unlinkable: Candidate,
) -> None:
    no_point = Candidate(candidates[0].func, {"rows": 3})
    first, second, _ = candidates
    measured = measurer.measure([first, hanging, crashing, no_point, killing, unlinkable, second])
    assert [measurement.ok for measurement in measured] == [True, False, False, False, False, False, True]
    assert measured[1].error == "did not end within 300 ms of processor time"
    assert measured[2].error == "crashed: Segmentation fault"
    assert str(measured[3].error).startswith("cannot build: ")
    assert "has the knobs ['group', 'rows', 'vectors'], but ['rows'] were given" in str(measured[3].error)
    assert measured[4].error == "ended by SIGKILL"
    assert str(measured[5].error).startswith("cannot link: ")
    assert "enx_is_nowhere" in str(measured[5].error)


def test_a_batch_of_failures_alone_is_measured_too(measurer: LocalMeasurer, killing: Candidate) -> None:
    assert [measurement.error for measurement in measurer.measure([killing])] == ["ended by SIGKILL"]
    assert measurer.measure([]) == []


def test_equal_candidates_seem_equal(measurer: LocalMeasurer, candidates: list[Candidate]) -> None:
    noise = measure_noise(measurer, candidates[0], copies=3)
    assert len(noise.seconds) == 3
    # not how quiet a machine is: only that copies are not mixed up with something else
    assert 0 <= noise.relative < 1


def test_the_machine_is_described(measurer: LocalMeasurer) -> None:
    described = measurer.describe()
    assert described["measurer"] == "local"
    assert described["unit"] == "s"
    assert described["timing"] == {"rounds": ROUNDS, "min_ms": 1, "limit_ms": 300, "core": max(os.sched_getaffinity(0))}
    assert int(described["cores"]) >= 1
    assert float(described["load_average"]) >= 0
    assert described["kernel"].startswith("Linux ")


def test_a_board_of_another_kind_cannot_be_timed_here() -> None:
    with pytest.raises(UserError, match="board 'rpi4' is not this machine.*--runner ssh or rpc.*--runner emulator"):
        LocalMeasurer(load_board("rpi4"))
