"""From a float model to an int8 program.

Export, insert observers, calibrate or follow a recipe, convert to quantize/dequantize, export again.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
import torchao
from pydantic import ValidationError

from edgenext_tvm.errors import UserError
from edgenext_tvm.model.edgenext import EdgeNeXt
from edgenext_tvm.quantize.bias_correction import correct_biases, output_means
from edgenext_tvm.quantize.calibrate import calibrate, image_batches, split_images
from edgenext_tvm.quantize.images import ImageSet
from edgenext_tvm.quantize.insert_qdq import convert_observers, insert_observers, num_classes
from edgenext_tvm.quantize.observers import ActivationObserver, ObserverSettings
from edgenext_tvm.quantize.preprocess import Preprocessing
from edgenext_tvm.quantize.recipe import ActivationQParams, Calibration, Recipe, Versions, weights_sha256
from edgenext_tvm.quantize.score_ranges import choose_ranges
from edgenext_tvm.quantize.shape_weights import Steps, reshape_weights, shape_weights

BIAS_IMAGES = 64
RECIPE_ENTRY = "recipe.json"


@dataclass(frozen=True)
class QuantizedProgram:
    """A quantize/dequantize program that still runs in PyTorch, and the recipe that fixes it.

    exported: float32 [N,3,S,S] (normalised RGB) to float32 logits [N,K]; weights inside are int8.
    """

    exported: torch.export.ExportedProgram
    recipe: Recipe

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of `x`, which has the exported shape."""
        with torch.no_grad():
            return self._module(x)

    @cached_property
    def _module(self) -> torch.nn.Module:
        return self.exported.module()

    def save(self, path: str | Path) -> Path:
        """Writes program and recipe as one .pt2 file; `load` gives back the same bits."""
        path = Path(path)
        if path.suffix != ".pt2":
            raise UserError(f"program file {path} must end in .pt2; try {path.with_suffix('.pt2')}")
        if not path.parent.is_dir():
            raise UserError(f"cannot write {path}: folder {path.parent} does not exist; create it first")
        extra = {RECIPE_ENTRY: self.recipe.model_dump_json()}
        with _without_load_warnings():
            torch.export.save(self.exported, str(path), extra_files=extra)
        return path

    @staticmethod
    def load(path: str | Path) -> QuantizedProgram:
        """Reads what `save` wrote. Fails with `UserError` naming the file when it is anything else."""
        path = Path(path)
        if not path.is_file():
            raise UserError(f"no quantized program at {path}; give a .pt2 file written by quantization")
        extra = {RECIPE_ENTRY: ""}
        try:
            with _without_load_warnings():
                exported = torch.export.load(str(path), extra_files=extra)
        except Exception as error:
            # torch raises errors of many kinds here; all mean that the file is not a usable program.
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise UserError(
                f"cannot read {path} as an exported program ({reason}); it may be truncated or made by another "
                "version of torch, write it again by quantizing"
            ) from error
        try:
            recipe = Recipe.model_validate_json(extra[RECIPE_ENTRY])
        except ValidationError as error:
            raise UserError(
                f"{path} is an exported program without a valid recipe inside; give a .pt2 file written by quantization"
            ) from error
        return QuantizedProgram(exported, recipe)


def quantize_model(
    model: torch.nn.Module,
    images: ImageSet,
    preprocessing: Preprocessing,
    settings: ObserverSettings | None = None,
    name: str | None = None,
    quiet: bool = False,
    *,
    steps: Steps | None = None,
    int16: frozenset[str] = frozenset(),
) -> QuantizedProgram:
    """Quantizes a float model for the images of `images`.

    model: an `EdgeNeXt` (folded here; the given one is left alone), or any module without BatchNorm whose input is
        one float32 tensor [1,3,S,S] and whose result is [1,K]. S is `preprocessing.crop_size`.
    steps: what is done to the weights. int16: keys of the tensors that become int16 instead of int8.
    """
    settings, steps = settings or ObserverSettings(), steps or Steps()
    _check_input_size(model, preprocessing.crop_size)
    example = torch.zeros(1, 3, preprocessing.crop_size, preprocessing.crop_size)
    shaped = shape_weights(model, images, preprocessing, steps)
    prepared, observers = insert_observers(shaped.model, example, settings, int16)
    seen, held_out = split_images(images) if settings.method == "auto" else (images, None)
    calibrate(prepared, image_batches(seen, preprocessing), len(seen), quiet)
    if held_out is not None:
        choose_ranges(prepared, observers, image_batches(held_out, preprocessing))
    recipe = Recipe(
        model=name or _model_name(model),
        input_size=preprocessing.crop_size,
        num_classes=num_classes(prepared),
        preprocessing=preprocessing,
        weights_sha256=weights_sha256(model),
        calibration=Calibration(source=images.name, num_images=len(images), seed=images.seed, sha256=images.sha256()),
        observer=settings,
        versions=Versions(torch=torch.__version__, torchao=torchao.__version__),
        equalization=shaped.equalization,
        rounding=shaped.rounding,
        activations={key: _qparams(observer) for observer in observers for key in observer.keys},
    )
    # Through the recipe's own types, so that building from the saved file cannot differ.
    freeze_all(observers, recipe)
    if steps.bias_correction:
        means = output_means(shaped.reference, image_batches(images, preprocessing, BIAS_IMAGES))
        corrections = correct_biases(prepared, means, image_batches(images, preprocessing, BIAS_IMAGES))
        recipe = recipe.model_copy(update={"bias_correction": corrections})
    return QuantizedProgram(convert_observers(prepared, example), recipe)


def quantize_with_recipe(model: torch.nn.Module, recipe: Recipe, batch_size: int = 1) -> QuantizedProgram:
    """Builds the program that `recipe` fixes, without any image; batch_size 1 gives the very program it was
    made for.

    Fails with `UserError` when the recipe was made for other weights, another input size or another network.
    """
    _check_input_size(model, recipe.input_size)
    digest = weights_sha256(model)
    if digest != recipe.weights_sha256:
        raise UserError(
            "the recipe was made for other weights: field 'weights_sha256' is "
            f"{recipe.weights_sha256[:12]}..., "
            f"this model's is {digest[:12]}...; load the checkpoint it was made for, or calibrate again"
        )
    example = torch.zeros(batch_size, 3, recipe.input_size, recipe.input_size)
    int16 = frozenset(key for key, params in recipe.activations.items() if params.dtype == "int16")
    prepared, observers = insert_observers(reshape_weights(model, recipe), example, recipe.observer, int16)
    freeze_all(observers, recipe)
    with torch.no_grad():
        prepared(example)  # shows the weights to their observers
    return QuantizedProgram(convert_observers(prepared, example), recipe)


@contextmanager
def _without_load_warnings() -> Iterator[None]:
    # torch warns that weights on a GPU might not be stored whole (ours are on the CPU), and logs a traceback
    # before it raises the error that is reported anyway.
    logger = logging.getLogger("torch.export")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="No complete tensor found", category=UserWarning)
            yield
    finally:
        logger.setLevel(level)


def freeze_all(observers: list[ActivationObserver], recipe: Recipe) -> None:
    """Gives every observer its parameters of `recipe`. UserError where the recipe does not fit the network."""
    wanted = [key for observer in observers for key in observer.keys]
    missing = [key for key in wanted if key not in recipe.activations]
    unknown = sorted(set(recipe.activations) - set(wanted))
    if missing or unknown:
        example = f"it lacks {missing[0]!r}" if missing else f"it has {unknown[0]!r}, which the model has not"
        raise UserError(
            f"the recipe does not fit this network: field 'activations': {example} "
            f"({len(missing)} missing, {len(unknown)} unknown); calibrate again"
        )
    for observer in observers:
        values = {recipe.activations[key].quantization for key in observer.keys}
        if len(values) > 1:
            raise UserError(
                f"recipe field 'activations': {', '.join(observer.keys)} share one scale but have "
                "different values; "
                "give them equal values, or calibrate again"
            )
        scale, zero_point, _ = values.pop()
        observer.freeze(scale, zero_point)


def _qparams(observer: ActivationObserver) -> ActivationQParams:
    scale, zero_point = observer.qparams()
    return ActivationQParams(scale=scale, zero_point=zero_point, dtype=observer.width, method=observer.method)


def _check_input_size(model: torch.nn.Module, crop_size: int) -> None:
    if isinstance(model, EdgeNeXt) and model.input_size != crop_size:
        raise UserError(
            f"the model was built for input size {model.input_size}, but preprocessing crops to {crop_size}; "
            "use the same size for both"
        )


def _model_name(model: torch.nn.Module) -> str:
    return model.config.name if isinstance(model, EdgeNeXt) else type(model).__name__
