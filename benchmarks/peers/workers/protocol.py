"""How every engine is driven: `convert` once, then `serve` answers lines on stdin with one JSON object each.

logits CASE FILE   runs the case's probe images, writes FILE: float32 [N, classes]
run N W            W runs to warm up, then N timed ones: {"median_ms", "min_ms", "runs"}
Anything that an engine prints goes to stderr.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

import numpy as np

PROBE = "probe.npy"


class Session(ABC):
    """A loaded network, batch 1."""

    @abstractmethod
    def set_input(self, image: np.ndarray) -> None:
        """Takes float32 [1,3,S,S] and brings it into the engine's own form; not timed."""

    @abstractmethod
    def run(self) -> None:
        """One inference; what is timed."""

    @abstractmethod
    def logits(self) -> np.ndarray:
        """float32 [classes] of the last run."""

    def probe_logits(self, case: Path) -> np.ndarray:
        """float32 [N, classes] of the case's probe images."""
        rows = []
        for image in np.load(case / PROBE):
            self.set_input(image[None])
            self.run()
            rows.append(np.array(self.logits(), np.float32).reshape(-1))
        return np.stack(rows)

    def measure(self, runs: int, warm_ups: int) -> dict[str, float]:
        """The median and least time of single inferences, in ms."""
        for _ in range(warm_ups):
            self.run()
        times = []
        for _ in range(runs):
            start = time.perf_counter_ns()
            self.run()
            times.append((time.perf_counter_ns() - start) / 1e6)
        return {"median_ms": statistics.median(times), "min_ms": min(times), "runs": runs}


Convert = Callable[[Path, Path, str], None]
"""(case folder, folder to write, precision)"""
Load = Callable[[Path, str, int], Session]
"""(folder that Convert wrote, precision, threads)"""


def main(convert: Convert, load: Load, arguments: list[str] | None = None) -> None:
    """`convert CASE OUT PRECISION` or `serve OUT PRECISION THREADS`."""
    given = sys.argv[1:] if arguments is None else arguments
    # engines print to stdout: keep the real one for answers alone
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if given[0] == "convert":
        convert(Path(given[1]), Path(given[2]), given[3])
        return
    session = load(Path(given[1]), given[2], int(given[3]))
    _answer(answers, {"ready": True})
    for line in sys.stdin:
        command, *values = line.rstrip("\n").split("\t")
        if command == "logits":
            np.save(values[1], session.probe_logits(Path(values[0])))
            _answer(answers, {"written": values[1]})
        elif command == "run":
            _answer(answers, session.measure(int(values[0]), int(values[1])))
        else:
            raise SystemExit(f"unknown command {command!r}; allowed: logits, run")


def _answer(stream, value: dict) -> None:
    stream.write(json.dumps(value) + "\n")
    stream.flush()
