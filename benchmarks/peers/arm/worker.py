"""Runs inside the emulator: an engine's answers to the case's probe images, then more inferences between two marks.

The marks are calls of a function that the emulator's plugin knows: it counts apart what ran between them. By then
everything is warm.
"""

from __future__ import annotations

import ctypes
import importlib
import sys
from pathlib import Path

import numpy as np

from benchmarks.peers.workers.protocol import Session

# of the dynamic loader, relative to whose entry point the plugin finds it; it does nothing, and the loader itself calls
# it only when it loads a library
MARK = "_dl_debug_state"


def main(arguments: list[str]) -> None:
    """`WORKER FOLDER PRECISION CASE LOGITS RUNS`: writes LOGITS, float32 [N, classes] of the case's probe images."""
    worker, folder, precision, case, logits, runs = arguments
    engine = importlib.import_module(f"benchmarks.peers.workers.{worker}")
    session: Session = engine.load(Path(folder), precision, 1)
    np.save(logits, session.probe_logits(Path(case)))
    mark = getattr(ctypes.CDLL(None), MARK)
    mark()
    for _ in range(int(runs)):
        session.run()
    mark()


if __name__ == "__main__":
    main(sys.argv[1:])
