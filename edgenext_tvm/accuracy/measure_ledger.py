"""Runs the same images through every stage of a build and fills the ledger."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from edgenext_tvm.accuracy import ledger
from edgenext_tvm.accuracy.network_inputs import library_input, native_input
from edgenext_tvm.accuracy.open_model import MeasuredModel
from edgenext_tvm.quantize.images import ImageSet
from edgenext_tvm.quantize.preprocess import Preprocessing
from edgenext_tvm.quantize.sensitivity import SwitchedNetwork
from edgenext_tvm.verify.device import run_logits
from edgenext_tvm.verify.host_build import build_for_host
from edgenext_tvm.verify.runner import HostRunner, Runner, choose_runner
from edgenext_tvm.verify.verify import known_labels

# More images a batch gain nothing on one core; the padding of the last batch costs the more.
BATCH = 16

Say = Callable[[str], None]


@dataclass(frozen=True)
class Ledger:
    """The rows and what they were measured on. runner: of the board's row, None where there is none."""

    rows: tuple[ledger.Row, ...]
    images: str
    board: str
    runner: str | None

    def to_dict(self) -> dict[str, object]:
        return {
            "images": self.images,
            "board": self.board,
            "runner": self.runner,
            "stages": [row.to_dict() for row in self.rows],
        }


def measure_ledger(
    model: MeasuredModel,
    images: ImageSet,
    runner: str | Runner | None = None,
    say: Say = lambda line: None,
) -> Ledger:
    """Fills the ledger of a build.

    runner: of the board's stage, by default the board's own; that stage is left out for a build for this machine, and
    one more is measured there: a build of the same module for this machine.
    """
    build = model.build
    labels = known_labels(images, build.manifest.num_classes)
    on_board = None
    if not (build.board.is_host and runner is None):
        on_board = runner if isinstance(runner, Runner) else choose_runner(build.board, runner)
    if build.board.is_host and isinstance(on_board, HostRunner):
        on_board = None
    pixels = [images.image(index) for index in range(len(images))]
    logits: dict[str, np.ndarray] = {}
    say(f"{len(pixels)} images in float")
    logits[ledger.NATIVE] = _float_logits(model, pixels, native_input)
    logits[ledger.PREPROCESSED] = _float_logits(model, pixels, library_input)
    if model.recipe is not None:
        say("the same images quantized in PyTorch")
        network = SwitchedNetwork(model.float_model, model.recipe, min(BATCH, len(pixels)))
        weights = {key: params for key, params in network.recipe_choice.items() if key.endswith(".weight")}
        logits[ledger.WEIGHTS] = _simulated(network, pixels, model.preprocessing, weights)
        logits[ledger.SIMULATED] = _simulated(network, pixels, model.preprocessing, network.recipe_choice)
    say("the same images in the C library on this machine")
    if build.board.is_host:
        logits[ledger.HOST] = run_logits(build, HostRunner(), pixels)
    else:
        with tempfile.TemporaryDirectory(prefix="edgenext-tvm-host-") as folder:
            on_host = build_for_host(build, model.lowered, Path(folder) / "build")
            logits[ledger.HOST] = run_logits(on_host, HostRunner(), pixels)
    if on_board is not None:
        say(f"the same images on {on_board.name}")
        logits[ledger.BOARD] = run_logits(build, on_board, pixels)
    rows = ledger.fill_ledger(logits, labels)
    return Ledger(rows, images.name, build.board.name, None if on_board is None else on_board.name)


def _batches(
    pixels: Sequence[np.ndarray],
    preprocessing: Preprocessing,
    to_input: Callable[[np.ndarray, Preprocessing], torch.Tensor],
) -> list[Callable[[], torch.Tensor]]:
    # made one at a time: all inputs of a large set together do not fit memory
    def batch(first: int) -> Callable[[], torch.Tensor]:
        return lambda: torch.stack([to_input(image, preprocessing) for image in pixels[first : first + BATCH]])

    return [batch(first) for first in range(0, len(pixels), BATCH)]


@torch.no_grad()
def _float_logits(
    model: MeasuredModel,
    pixels: Sequence[np.ndarray],
    to_input: Callable[[np.ndarray, Preprocessing], torch.Tensor],
) -> np.ndarray:
    batches = _batches(pixels, model.preprocessing, to_input)
    return torch.cat([model.float_model(batch()) for batch in batches]).numpy()


def _simulated(
    network: SwitchedNetwork, pixels: Sequence[np.ndarray], preprocessing: Preprocessing, choice: dict
) -> np.ndarray:
    batches = _batches(pixels, preprocessing, library_input)
    return torch.cat([network.logits(batch(), choice) for batch in batches]).numpy()
