"""Calibration images as network inputs, and their run through a graph whose observers see every tensor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from edgenext_tvm.quantize.images import ImageSet
from edgenext_tvm.quantize.preprocess import Preprocessing

DEFAULT_CALIBRATION_IMAGES = 256
HELD_OUT_IMAGES = 32


def progress_bar(quiet: bool) -> Progress:
    """A progress bar on stderr, so that stdout stays clean; invisible when quiet."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), disable=quiet, transient=True)


@torch.no_grad()
def calibrate(prepared: torch.nn.Module, batches: Iterable[torch.Tensor], total: int, quiet: bool = False) -> int:
    """Runs `prepared` on every batch (float32, its example input's shape) and returns how many batches it
    saw.
    """
    seen = 0
    with progress_bar(quiet) as progress:
        task = progress.add_task("calibrate", total=total)
        for batch in batches:
            prepared(batch)
            seen += 1
            progress.advance(task)
    return seen


def image_batches(images: ImageSet, preprocessing: Preprocessing, limit: int | None = None) -> Iterator[torch.Tensor]:
    """Network inputs float32 [1,3,S,S], one per image, in order; with `limit` at most so many, evenly spread."""
    stride = 1 if limit is None else -(-len(images) // limit)
    for index in range(0, len(images), stride):
        yield torch.from_numpy(preprocessing(images.image(index)))[None]


def split_images(images: ImageSet) -> tuple[ImageSet, ImageSet]:
    """Images to decide on, and every fourth, at most HELD_OUT_IMAGES, to check decisions on; fewer than 4 are both."""
    if len(images) < 4:
        return images, images
    held_out: np.ndarray = np.arange(3, len(images), 4)
    held_out = held_out[:: -(-len(held_out) // HELD_OUT_IMAGES)]
    return images.pick(np.setdiff1d(np.arange(len(images)), held_out)), images.pick(held_out)
