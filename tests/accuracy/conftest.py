"""A small network that is really quantized, compiled for this machine and run; and the bundled model's build."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgenext_tvm.accuracy.open_model import MeasuredModel, open_measured
from edgenext_tvm.board import load_board
from edgenext_tvm.codegen.build import build_library
from edgenext_tvm.codegen.meta import ModelMeta
from edgenext_tvm.frontend.from_torch import import_program
from edgenext_tvm.passes.pipeline import lower
from edgenext_tvm.quantize import Preprocessing, Recipe, open_images, quantize_model, quantize_with_recipe
from edgenext_tvm.verify.build_folder import BOARD_FILE, open_build
from edgenext_tvm.verify.quantization import input_quantization

CHANNELS, SIDE = 8, 16


class Bottleneck(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(CHANNELS, 2 * CHANNELS)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(2 * CHANNELS, CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class Small(nn.Module):
    """float32 [N,3,16,16] to logits [N,5]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, CHANNELS, 4, stride=4)
        self.conv = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=CHANNELS)
        self.mlp = Bottleneck()
        self.fc = nn.Linear(CHANNELS, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        y = y + self.mlp(self.conv(y).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.fc(y.mean((2, 3)))


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def small_model() -> nn.Module:
    torch.manual_seed(3)
    return Small().eval()


@pytest.fixture(scope="session")
def small_preprocessing() -> Preprocessing:
    return Preprocessing(resize_size=18, crop_size=SIDE)


@pytest.fixture(scope="session")
def small_recipe(small_model: nn.Module, small_preprocessing: Preprocessing) -> Recipe:
    """With one int16 tensor, `:mean`."""
    images = open_images("synthetic:4")
    return quantize_model(small_model, images, small_preprocessing, quiet=True, int16=frozenset({":mean"})).recipe


@pytest.fixture(scope="session")
def compile_small(
    small_model: nn.Module, small_preprocessing: Preprocessing, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Recipe], MeasuredModel]:
    """Compiles the small network for this machine with a recipe."""

    def compiled(recipe: Recipe) -> MeasuredModel:
        lowered = lower(import_program(quantize_with_recipe(small_model, recipe).exported))
        scale, zero_point = input_quantization(lowered)
        meta = ModelMeta("small", "Small", "int8", scale, zero_point, preprocessing=small_preprocessing)
        host = load_board("host")
        out = tmp_path_factory.mktemp("small") / "build"
        build_library(lowered, meta, host, out, extra_files={BOARD_FILE: host.model_dump_json().encode()})
        return MeasuredModel(open_build(out), small_model, small_preprocessing, recipe)

    return compiled


@pytest.fixture(scope="session")
def small(compile_small: Callable[[Recipe], MeasuredModel], small_recipe: Recipe) -> MeasuredModel:
    return compile_small(small_recipe)


@pytest.fixture(scope="session")
def bundled(host_build: Path) -> MeasuredModel:
    return open_measured(host_build)


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images with labels, four of class 1 and two of class 0."""
    path = tmp_path_factory.mktemp("images") / "images.npz"
    images = np.random.default_rng(2).integers(0, 256, (6, 20, 24, 3)).astype(np.uint8)
    np.savez(path, images=images, labels=np.array([1, 1, 0, 1, 0, 1], np.uint8))
    return path
