"""This project: `compile_model` for the host, and the build's own program with --benchmark."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.peers.workers.protocol import Session, main

BUILD = "build"
# the program's own, fixed: the other engines are given as many
WARM_UPS = 3


class BuildSession(Session):
    """Starts the static program for every measurement; inside it, only inferences are timed."""

    def __init__(self, folder: Path, threads: int) -> None:
        programs = [path for path in (folder / BUILD / "bin").iterdir() if os.access(path, os.X_OK)]
        self.command = [str(programs[0]), "--threads", str(threads)]

    def set_input(self, image: np.ndarray) -> None:
        raise NotImplementedError("the program reads images itself")

    run = logits = None  # type: ignore[assignment]

    def probe_logits(self, case: Path) -> np.ndarray:
        with tempfile.TemporaryDirectory() as folder:
            dump = Path(folder) / "logits.npy"
            subprocess.run(
                [*self.command, "--dump", str(dump), str(case / "probe_images.npy")],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            return np.load(dump)

    def measure(self, runs: int, warm_ups: int) -> dict[str, float]:
        if warm_ups != WARM_UPS:
            raise ValueError(f"the program warms up {WARM_UPS} times, not {warm_ups}")
        finished = subprocess.run(
            [*self.command, "--benchmark", "--json", "--repeat", str(runs)], check=True, capture_output=True, text=True
        )
        timing = json.loads(finished.stdout)["benchmark"]
        return {"median_ms": timing["median_us"] / 1e3, "min_ms": timing["min_us"] / 1e3, "runs": timing["runs"]}


def convert(case: Path, out: Path, precision: str) -> None:
    from benchmarks.peers.case import CALIBRATION, CHECKPOINT, INPUT_SIZE
    from edgenext_tvm.api import compile_model

    variant = case.name.rsplit("-", 1)[0]
    result = compile_model(
        variant,
        "host",
        checkpoint=CHECKPOINT,
        calibration=CALIBRATION if precision == "int8" else None,
        input_size=INPUT_SIZE,
        precision=precision,
        out=out / BUILD,
    )
    if not result.selftest:
        raise SystemExit("the build's self-test failed")


def load(folder: Path, precision: str, threads: int) -> Session:
    return BuildSession(folder, threads)


if __name__ == "__main__":
    main(convert, load)
