"""PyTorch eager, float32, channels last: the layout in which its CPU convolutions are fastest."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch

from benchmarks.peers.workers.network import load_network
from benchmarks.peers.workers.protocol import Session, main


class PyTorchSession(Session):
    """The folded network in inference mode."""

    def __init__(self, folder: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        torch.set_num_interop_threads(1)
        self.network = load_network(folder).to(memory_format=torch.channels_last)

    def set_input(self, image: np.ndarray) -> None:
        self.image = torch.from_numpy(image).to(memory_format=torch.channels_last)

    def run(self) -> None:
        with torch.inference_mode():
            self.output = self.network(self.image)

    def logits(self) -> np.ndarray:
        return self.output.numpy()[0]


def convert(case: Path, out: Path, precision: str) -> None:
    shutil.copy(case / "model.pt", out)


def load(folder: Path, precision: str, threads: int) -> Session:
    return PyTorchSession(folder, threads)


if __name__ == "__main__":
    main(convert, load)
