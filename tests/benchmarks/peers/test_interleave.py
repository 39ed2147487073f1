"""Rounds are interleaved, their medians robust, and workers are real processes that stand still when not asked."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.peers.failures import PeerUnavailable
from benchmarks.peers.interleave import WARM_UPS, Samples, Worker, race

CHECKOUT = Path(__file__).resolve().parents[3]
TOY = str(Path(__file__).with_name("toy_worker.py"))


class Recorder:
    def __init__(self, name: str, calls: list[str], fails_at: int = -1) -> None:
        self.name, self.calls, self.fails_at = name, calls, fails_at

    def measure(self, runs: int) -> dict[str, float]:
        self.calls.append(self.name)
        if self.calls.count(self.name) == self.fails_at:
            raise PeerUnavailable("worker ended: boom")
        return {"median_ms": float(self.calls.count(self.name)), "min_ms": 0.5, "runs": runs}


@pytest.fixture
def toys(tmp_path: Path) -> Iterator:
    started: list[Worker] = []

    def start(behaviour: str) -> Worker:
        variables = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
        command = [sys.executable, TOY, "serve", str(tmp_path), behaviour, "1"]
        started.append(Worker(command, variables, tmp_path / f"{behaviour}.log"))
        return started[-1]

    yield start
    for worker in started:
        worker.close()


def test_rounds_are_interleaved_and_every_second_one_runs_backwards() -> None:
    calls: list[str] = []
    samples, failed = race({name: Recorder(name, calls) for name in "ABC"}, rounds=3, runs=4)
    assert "".join(calls) == "ABCCBAABC"
    assert failed == {}
    assert samples["B"].round_medians_ms == [1, 2, 3]
    assert samples["B"].runs == 12


def test_one_that_fails_keeps_its_reason_and_leaves_the_others_their_rounds() -> None:
    calls: list[str] = []
    workers = {"A": Recorder("A", calls), "B": Recorder("B", calls, fails_at=2)}
    samples, failed = race(workers, rounds=3, runs=1)
    assert failed == {"B": "worker ended: boom"}
    assert list(samples) == ["A"]
    assert len(samples["A"].round_medians_ms) == 3
    assert calls.count("B") == 2


def test_a_disturbed_round_does_not_move_the_median() -> None:
    samples = Samples()
    for median in (2.0, 2.1, 50.0, 2.2, 1.9):
        samples.add({"median_ms": median, "min_ms": median - 0.1, "runs": 3})
    assert samples.median_ms == 2.1
    assert samples.min_ms == pytest.approx(1.8)
    assert samples.spread == pytest.approx((50 - 1.9) / 2.1)
    assert samples.runs == 15


def test_a_worker_measures_what_it_runs_and_stops_between_rounds(toys) -> None:
    worker = toys("good")
    measured = worker.measure(4)
    assert measured["runs"] == 4
    assert 2.0 <= measured["min_ms"] <= measured["median_ms"] < 2000
    status = Path(f"/proc/{worker.process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    assert status == "T"


def test_two_real_workers_race(toys) -> None:
    samples, failed = race({"one": toys("good"), "two": toys("wrong")}, rounds=2, runs=2)
    assert failed == {}
    assert {name: taken.runs for name, taken in samples.items()} == {"one": 4, "two": 4}


def test_a_worker_that_crashes_names_its_last_words_and_log(toys, tmp_path: Path) -> None:
    worker = toys("crash")
    with pytest.raises(PeerUnavailable, match=r"worker ended: RuntimeError: out of luck \(log: .*crash\.log\)"):
        worker.measure(6 - WARM_UPS)


def test_a_worker_that_cannot_load_is_refused_at_once(toys) -> None:
    with pytest.raises(PeerUnavailable, match="worker ended: RuntimeError: libtoy.so is missing"):
        toys("absent")
