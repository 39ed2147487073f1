"""Runs workers in rounds, A B C A B C, so that every one meets the same states of the machine."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector
from typing import Any, Protocol

from benchmarks.peers.failures import PeerUnavailable, last_words

ANSWER_TIMEOUT_S = 300
# what this project's program does by itself before it measures
WARM_UPS = 3


class Measurable(Protocol):
    """What a round asks of a worker."""

    def measure(self, runs: int) -> dict[str, float]:
        """{"median_ms", "min_ms", "runs"} of `runs` inferences."""


class Worker:
    """One process that loaded one network. It is stopped (SIGSTOP) whenever it is not asked, so that threads which
    spin while they wait for work take nothing from the others.
    """

    def __init__(self, command: Sequence[str], variables: Mapping[str, str], log: Path) -> None:
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w") as errors:
            self.process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=dict(variables),
                text=True,
            )
        try:
            self._answer()
        except PeerUnavailable:
            self.close()
            raise
        self._pause()

    def measure(self, runs: int) -> dict[str, float]:
        return self._ask(f"run\t{runs}\t{WARM_UPS}")

    def write_logits(self, case: Path, file: Path) -> None:
        """Runs the case's probe images and writes their logits to `file`."""
        self._ask(f"logits\t{case}\t{file}")

    def close(self) -> None:
        """Ends the process; it may be asked no more."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream:
                stream.close()

    def _ask(self, line: str) -> dict[str, Any]:
        os.kill(self.process.pid, signal.SIGCONT)
        assert self.process.stdin
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise self._failure("ended") from None
        answer = self._answer()
        self._pause()
        return answer

    def _pause(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)
        # until it really stands still; without reaping it, should it have ended
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout
        with DefaultSelector() as selector:
            selector.register(self.process.stdout, EVENT_READ)
            if not selector.select(ANSWER_TIMEOUT_S):
                raise self._failure(f"gave no answer in {ANSWER_TIMEOUT_S} s")
        line = self.process.stdout.readline()
        if not line:
            raise self._failure("ended")
        return json.loads(line)

    def _failure(self, what: str) -> PeerUnavailable:
        return PeerUnavailable(f"worker {what}: {last_words(self.log.read_text())} (log: {self.log})")


@dataclass
class Samples:
    """Per round the median of its runs, and the least time of all; ms."""

    round_medians_ms: list[float] = field(default_factory=list)
    min_ms: float = float("inf")
    runs: int = 0

    @property
    def median_ms(self) -> float:
        """The median over rounds: one disturbed round does not move it."""
        return statistics.median(self.round_medians_ms)

    @property
    def spread(self) -> float:
        """(highest - lowest round) / median: how far the machine was from quiet."""
        return (max(self.round_medians_ms) - min(self.round_medians_ms)) / self.median_ms

    def add(self, measured: Mapping[str, float]) -> None:
        self.round_medians_ms.append(measured["median_ms"])
        self.min_ms = min(self.min_ms, measured["min_ms"])
        self.runs += int(measured["runs"])


def race(
    workers: Mapping[str, Measurable],
    rounds: int,
    runs: int,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[dict[str, Samples], dict[str, str]]:
    """Measures each worker once per round, in order, every second round backwards, so that no one always follows the
    same neighbour. Returns samples, and the reasons of those that failed on the way and were measured no further.
    """
    samples = {name: Samples() for name in workers}
    failed: dict[str, str] = {}
    for index in range(rounds):
        order: Iterable[str] = workers if index % 2 == 0 else reversed(list(workers))
        for name in order:
            if name in failed:
                continue
            try:
                samples[name].add(workers[name].measure(runs))
            except PeerUnavailable as error:
                failed[name] = str(error)
        progress(index + 1)
    return {name: taken for name, taken in samples.items() if name not in failed}, failed
