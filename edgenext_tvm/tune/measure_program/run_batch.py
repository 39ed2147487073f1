"""Runs a batch's program until every candidate has a result, whatever single candidates do to the process."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgenext_tvm.tune.measure import Candidate, Measurement, MeasurerLost
from edgenext_tvm.tune.measure_program.build_batch import BatchBuilder, index_of, name_of

_START_S = 30.0


@dataclass(frozen=True)
class TimingOptions:
    """How a candidate is timed.

    rounds    times that every candidate of a batch has its turn
    min_ms    how long a turn lasts; its result is the least time of one call, each taken over 50 us or more
    limit_ms  processor time after which a turn is given up as hung
    core      the processor core to stay on, or None
    """

    rounds: int = 5
    min_ms: int = 2
    limit_ms: int = 2000
    core: int | None = None

    def arguments(self) -> list[str]:
        """For the program's command line."""
        pinned = [] if self.core is None else ["--core", str(self.core)]
        fields = {"rounds": self.rounds, "min-ms": self.min_ms, "limit-ms": self.limit_ms}
        return [text for name, value in fields.items() for text in (f"--{name}", str(value))] + pinned

    def run_limit_s(self, candidates: int) -> float:
        """Seconds by the clock that a run may take before the device counts as hung, generous to a busy one."""
        turn_s = self.limit_ms * 1e-3
        return _START_S + candidates * (2 * turn_s + 10 * self.rounds * self.min_ms * 1e-3)


@dataclass(frozen=True)
class Ended:
    """One run of the program: what it printed, and how it ended if not by itself, for people ("ended by SIGKILL")."""

    stdout: str
    trouble: str | None = None


@dataclass
class Lines:
    """What the program's lines say: seconds of each round by index, and why candidates failed."""

    begun: list[int] = field(default_factory=list)
    once: list[int] = field(default_factory=list)
    seconds: dict[int, list[float]] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    complete: bool = False

    def add(self, text: str) -> None:
        """Read the whole lines of `text`; a broken last line is left out."""
        for line in text[: text.rfind("\n") + 1].splitlines():
            words = line.split(maxsplit=2)
            if words == ["end"]:
                self.complete = True
            elif words[0] == "begin":
                self.begun.append(index_of(words[1]))
            elif words[0] == "once":
                self.once.append(index_of(words[1]))
            elif words[0] == "failed":
                self.failed[index_of(words[1])] = words[2]
            else:
                self.seconds.setdefault(index_of(words[0]), []).append(float(words[2]))

    def measurement(self, index: int, otherwise: str) -> Measurement:
        """The result of one candidate; `otherwise` says why it has none."""
        if index in self.failed:
            return Measurement((), self.failed[index])
        seconds = tuple(self.seconds.get(index, ()))
        return Measurement(seconds) if seconds else Measurement((), otherwise)


class DeviceLost(Exception):
    """The device went away during a run: `stdout` is what had arrived."""

    def __init__(self, message: str, stdout: str = "") -> None:
        super().__init__(message)
        self.stdout = stdout


Execute = Callable[[Path, Sequence[str], float], Ended]
"""(program, arguments, seconds it may take) -> how it went. Raises DeviceLost if the device is gone."""


def measure_times(
    builder: BatchBuilder, batch: Sequence[Candidate], execute: Execute, options: TimingOptions
) -> list[Measurement]:
    """One measurement per candidate: built, run by `execute`, read. MeasurerLost if `execute` raises DeviceLost."""
    built = builder.build(batch)
    results = {index: Measurement((), error) for index, error in built.errors.items()}
    while built.program is not None and len(results) < len(batch):
        skipped = [text for index in results for text in ("--skip", name_of(index)) if index not in built.errors]
        lines = Lines()
        try:
            ended = execute(built.program, [*options.arguments(), *skipped], options.run_limit_s(len(batch)))
        except DeviceLost as lost:
            lines.add(lost.stdout)
            told = [results.get(index) or lines.measurement(index, str(lost)) for index in range(len(batch))]
            raise MeasurerLost(str(lost), told) from None
        lines.add(ended.stdout)
        trouble = ended.trouble or "the program ended early"
        rest = [index for index in range(len(batch)) if index not in results]
        if lines.complete or not lines.begun:
            results |= {index: lines.measurement(index, trouble) for index in rest}
            break
        # the one that ended the process is the last to begin, unless it did so in a later round
        results |= {index: Measurement((), error) for index, error in lines.failed.items()}
        results[_culprit(lines, rest)] = Measurement((), trouble)
    return [results[index] for index in range(len(batch))]


def _culprit(lines: Lines, rest: Sequence[int]) -> int:
    """The candidate whose turn it was when the process ended."""
    running = [index for index in lines.begun if index not in lines.failed]
    if not lines.seconds or not running:
        return lines.begun[-1]
    most = max(len(seconds) for seconds in lines.seconds.values())
    behind = [index for index in running if len(lines.seconds.get(index, ())) < most]
    return behind[0] if behind else running[0]


def how_it_ended(status: int) -> str | None:
    """For people: None for status 0; a negative status is a signal's number."""
    if status == 0:
        return None
    return f"ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
