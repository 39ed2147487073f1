"""Runs inside the emulator: an engine's answers to the case's probe images, then `extra` more inferences.

Two runs that differ in `extra` alone differ by the instructions of so many inferences, with everything warm.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np

from benchmarks.peers.workers.protocol import Session


def main(arguments: list[str]) -> None:
    """`WORKER FOLDER PRECISION CASE LOGITS EXTRA`: writes LOGITS, float32 [N, classes] of the case's probe images."""
    worker, folder, precision, case, logits, extra = arguments
    engine = importlib.import_module(f"benchmarks.peers.workers.{worker}")
    session: Session = engine.load(Path(folder), precision, 1)
    np.save(logits, session.probe_logits(Path(case)))
    for _ in range(int(extra)):
        session.run()


if __name__ == "__main__":
    main(sys.argv[1:])
