"""Pictures of coloured squares in class folders, a network of two layers, and one thread: equal bits everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from edgenext_tvm.finetune.training_images import TrainingImages
from edgenext_tvm.quantize import open_images

COLOURS = {"blue": (40, 40, 210), "green": (40, 210, 40), "red": (210, 40, 40)}

WriteSquares = Callable[..., Path]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def write_squares() -> WriteSquares:
    """write(folder, per_class, names): noise with a square of the class's colour somewhere, as PNG files."""

    def write(folder: Path, per_class: int, names: tuple[str, ...] = tuple(COLOURS), seed: int = 0) -> Path:
        rng = np.random.default_rng(seed)
        for name in names:
            (folder / name).mkdir(parents=True)
            for index in range(per_class):
                pixels = rng.integers(0, 60, (48, 64, 3))
                top, left = rng.integers(0, 20, 2)
                pixels[top : top + 28, left : left + 28] = COLOURS[name]
                Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{index:03}.png")
        return folder

    return write


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory, write_squares: WriteSquares) -> Path:
    """Three classes of 22 pictures. Read only."""
    return write_squares(tmp_path_factory.mktemp("squares") / "photos", 22)


@pytest.fixture
def square_images(squares: Path) -> TrainingImages:
    images = TrainingImages(open_images(squares), 64)
    images.load()
    return images


class TwoLayers(nn.Module):
    """float32 [N,3,S,S] to logits [N,3]; S a multiple of 8."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 8, stride=8)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(self.stem(x))).mean((2, 3)))


@pytest.fixture
def make_network() -> Callable[[], TwoLayers]:
    def make() -> TwoLayers:
        with torch.random.fork_rng():
            torch.manual_seed(1)
            return TwoLayers()

    return make
