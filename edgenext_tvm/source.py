"""What the user's MODEL means: a variant with weights, an exported program, or an ONNX file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edgenext_tvm.errors import UserError
from edgenext_tvm.model.checkpoint import bundled_checkpoint, checkpoint_metadata, load_model
from edgenext_tvm.model.checkpoint_file import CheckpointMetadata
from edgenext_tvm.model.config import VARIANTS, get_config
from edgenext_tvm.model.edgenext import EdgeNeXt, build_model
from edgenext_tvm.model.init_random import init_random
from edgenext_tvm.quantize.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

PROGRAM_SUFFIXES = (".pt2", ".onnx")
IMAGENET_CLASSES = 1000
# every such number fits the 64 bits of a seed
MAX_SEED_DIGITS = 18
# EdgeNeXt's published evaluation resizes the short side to 256/0.9 pixels and crops 256 (timm's crop_pct 0.9).
IMAGENET_CROP_SHARE = 0.9


@dataclass(frozen=True)
class FloatModel:
    """A variant with its weights, and what happens to an image before it. origin: where the weights came from."""

    model: EdgeNeXt
    preprocessing: Preprocessing
    origin: str
    is_bundled: bool


def is_program_file(model: str) -> bool:
    """True when MODEL names a file with a quantized program instead of a variant."""
    return Path(model).suffix in PROGRAM_SUFFIXES


def model_identifier(model: str) -> str:
    """The C identifier that names everything generated for MODEL: its name, or the file's name made valid."""
    stem = Path(model).stem if is_program_file(model) else model
    name = re.sub(r"\W", "_", stem, flags=re.ASCII)
    return name if re.match(r"[A-Za-z]", name) else f"model_{name}"


def load_float_model(name: str, checkpoint: str | None, num_classes: int | None, input_size: int | None) -> FloatModel:
    """The variant `name` with weights from a file, from `random[:SEED]`, or the bundled ones when None.

    What is not given is taken from the checkpoint. Raises UserError for an unknown variant, for missing weights
    (proposing what to give), and for weights that do not fit.
    """
    get_config(name)
    if checkpoint is not None and re.fullmatch(r"random(:.*)?", checkpoint):
        return _random_model(name, checkpoint, num_classes, input_size)
    path = Path(checkpoint) if checkpoint is not None else bundled_checkpoint(name)
    if path is None:
        with_weights = [variant for variant in VARIANTS if bundled_checkpoint(variant)]
        raise UserError(
            f"no weights of {name} come with the package (it has {', '.join(with_weights)}); give them with "
            "--checkpoint FILE, or try --checkpoint random for shapes and timing alone"
        )
    metadata = checkpoint_metadata(path)
    model = load_model(path, name, num_classes, input_size)
    origin = str(path) if checkpoint is not None else f"bundled {path.name}"
    return FloatModel(model, _preprocessing(model, metadata), origin, checkpoint is None)


def _random_model(name: str, checkpoint: str, num_classes: int | None, input_size: int | None) -> FloatModel:
    _, colon, digits = checkpoint.partition(":")
    if colon and not (digits.isascii() and digits.isdigit() and len(digits) <= MAX_SEED_DIGITS):
        raise UserError(
            f"checkpoint '{checkpoint}': the seed must be a number of at most {MAX_SEED_DIGITS} digits, "
            "for example random:1"
        )
    seed = int(digits) if colon else 0
    # a default for shapes: the published models' classes and size
    classes = IMAGENET_CLASSES if num_classes is None else num_classes
    size = 256 if input_size is None else input_size
    model = init_random(build_model(name, classes, size, seed=seed), seed).eval()
    return FloatModel(model, _preprocessing(model, CheckpointMetadata()), f"random weights, seed {seed}", False)


def _preprocessing(model: EdgeNeXt, metadata: CheckpointMetadata) -> Preprocessing:
    size = model.input_size
    is_imagenet = model.num_classes == IMAGENET_CLASSES and metadata.input_size is None
    names = metadata.classes if len(metadata.classes) == model.num_classes else ()
    return Preprocessing(
        resize_size=int(size / IMAGENET_CROP_SHARE) if is_imagenet else size,
        crop_size=size,
        mean=metadata.mean or IMAGENET_MEAN,
        std=metadata.std or IMAGENET_STD,
        class_names=names or None,
    )
