"""An engine as small as can be: multiplies its input by a matrix. Its precision says how it misbehaves."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from benchmarks.peers.workers.protocol import Session, main

MATRIX = np.random.default_rng(0).standard_normal((12, 5)).astype(np.float32)


class ToySession(Session):
    def __init__(self, behaviour: str) -> None:
        self.behaviour = behaviour
        self.runs = 0
        self.set_input(np.ones((1, 3, 2, 2), np.float32))

    def set_input(self, image: np.ndarray) -> None:
        self.image = image.reshape(1, -1)

    def run(self) -> None:
        self.runs += 1
        print("an engine that prints on stdout")
        if self.behaviour == "crash" and self.runs > 5:
            raise RuntimeError("out of luck")
        time.sleep(0.002)
        self.output = self.image @ MATRIX

    def logits(self) -> np.ndarray:
        return self.output[0, ::-1] if self.behaviour == "wrong" else self.output[0]


def load(folder: Path, precision: str, threads: int) -> Session:
    if precision == "absent":
        raise RuntimeError("libtoy.so is missing")
    return ToySession(precision)


if __name__ == "__main__":
    main(lambda case, out, precision: None, load)
