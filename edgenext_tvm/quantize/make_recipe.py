"""Calibrates a checkpoint and writes its recipe."""

from __future__ import annotations

from pathlib import Path

from edgenext_tvm.errors import UserError
from edgenext_tvm.model.checkpoint import load_model
from edgenext_tvm.model.checkpoint_file import checkpoint_metadata
from edgenext_tvm.quantize.convert import QuantizedProgram, quantize_model
from edgenext_tvm.quantize.images import open_images
from edgenext_tvm.quantize.observers import ObserverSettings
from edgenext_tvm.quantize.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

DEFAULT_CALIBRATION_IMAGES = 512
# Share of the resized short side that ImageNet evaluation keeps, as in the official EdgeNeXt code.
IMAGENET_CROP_RATIO = 0.875


def checkpoint_preprocessing(checkpoint: str | Path, input_size: int, crop_ratio: float | None = None) -> Preprocessing:
    """Preprocessing for a checkpoint: what its metadata says, else ImageNet's mean and std.

    crop_ratio: crop side over resized short side; None means 1 for a checkpoint that names its own input size
    (trained on whole images), else 0.875.
    """
    metadata = checkpoint_metadata(checkpoint)
    if crop_ratio is None:
        crop_ratio = 1.0 if metadata.input_size else IMAGENET_CROP_RATIO
    if not 0.1 <= crop_ratio <= 1.0:
        raise UserError(f"crop ratio is {crop_ratio}; allowed: 0.1 to 1.0 (try {IMAGENET_CROP_RATIO})")
    if metadata.resize not in (None, "bilinear"):
        raise UserError(
            f"checkpoint {checkpoint} wants resize {metadata.resize!r}; allowed: 'bilinear'; "
            "change its metadata if bilinear is acceptable"
        )
    return Preprocessing(
        resize_size=int(input_size / crop_ratio),
        crop_size=input_size,
        mean=metadata.mean or IMAGENET_MEAN,
        std=metadata.std or IMAGENET_STD,
        class_names=metadata.classes or None,
    )


def make_recipe(
    checkpoint: str | Path,
    images: str | Path,
    output: str | Path,
    *,
    limit: int = DEFAULT_CALIBRATION_IMAGES,
    seed: int = 0,
    model_name: str | None = None,
    input_size: int | None = None,
    crop_ratio: float | None = None,
    settings: ObserverSettings | None = None,
    quiet: bool = False,
) -> QuantizedProgram:
    """Calibrates `checkpoint` on at most `limit` images of `images`, writes the recipe to `output`, returns
    the program.
    """
    model = load_model(checkpoint, name=model_name, input_size=input_size)
    preprocessing = checkpoint_preprocessing(checkpoint, model.input_size, crop_ratio)
    program = quantize_model(model, open_images(images, limit, seed), preprocessing, settings, quiet=quiet)
    program.recipe.save(output)
    return program
