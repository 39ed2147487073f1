"""What happens to a model's float weights before calibration: folding, equalization, rounding, in this order.

`shape_weights` decides it from images; `reshape_weights` does the same again from a recipe, without any.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, field

import torch

from edgenext_tvm.errors import UserError
from edgenext_tvm.model.edgenext import EdgeNeXt
from edgenext_tvm.model.fold import fold_for_quantization
from edgenext_tvm.quantize.bias_correction import corrected_bias
from edgenext_tvm.quantize.calibrate import image_batches, split_images
from edgenext_tvm.quantize.equalize import (
    Equalization,
    apply_equalization,
    choose_attention_exponents,
    choose_norm_exponents,
)
from edgenext_tvm.quantize.images import ImageSet
from edgenext_tvm.quantize.pack_levels import pack_levels, unpack_levels
from edgenext_tvm.quantize.preprocess import Preprocessing
from edgenext_tvm.quantize.recipe import Recipe
from edgenext_tvm.quantize.weight_rounding import (
    anchors,
    apply_levels,
    input_moments,
    keep_better,
    nearest,
    round_weights,
)

# A channel's peak and the correlation of inputs show on few images; more change nothing that can be measured.
EQUALIZATION_IMAGES = 32
ROUNDING_IMAGES = 64


@dataclass(frozen=True)
class Steps:
    """What is done to the weights beside quantizing them.

    equalize: scale channels of attentions to like ranges. equalize_norms: those of LayerNorms too, where it pays;
        each costs an affine LayerNorm on the device.
    rounding_budget_min: minutes that choosing each weight's rounding may take, layers in network order; those
        that are left, and all with 0, are rounded to nearest.
    bias_correction: make the mean of each layer's output channels that of the float model. Off, because rounding
        for the layers' outputs keeps most of the means already: alone it lowers the logits' error, behind that not.
    """

    equalize: bool = True
    equalize_norms: bool = False
    rounding_budget_min: float = 10.0
    bias_correction: bool = False

    def __post_init__(self) -> None:
        if not 0.0 <= self.rounding_budget_min <= 1e6:
            raise UserError(f"rounding budget is {self.rounding_budget_min} minutes; allowed: 0 or more (try 10)")


@dataclass(frozen=True)
class ShapedWeights:
    """A model ready for export, and what made it so. reference: the same before rounding. rounding: packed levels by
    module path.
    """

    model: torch.nn.Module
    reference: torch.nn.Module
    equalization: Equalization = field(default_factory=Equalization)
    rounding: dict[str, str] = field(default_factory=dict)


def shape_weights(
    model: torch.nn.Module, images: ImageSet, preprocessing: Preprocessing, steps: Steps
) -> ShapedWeights:
    """Folds a copy of `model` and does to its weights what `steps` says, decided on `images`."""
    shaped = _folded(model)
    equalization = Equalization()
    if isinstance(shaped, EdgeNeXt):
        equalization = _equalize(shaped, images, preprocessing, steps)
    reference = copy.deepcopy(shaped)
    rounding: dict[str, str] = {}
    if steps.rounding_budget_min > 0:
        rounding = _round(shaped, images, preprocessing, steps.rounding_budget_min * 60)
    return ShapedWeights(shaped, reference, equalization, rounding)


def reshape_weights(model: torch.nn.Module, recipe: Recipe) -> torch.nn.Module:
    """A copy of `model` with the weights that `recipe` gives it. UserError where the recipe does not fit."""
    shaped = _folded(model)
    if isinstance(shaped, EdgeNeXt):
        apply_equalization(shaped, recipe.equalization)
    layers = anchors(shaped)
    for name, packed in recipe.rounding.items():
        if name not in layers:
            raise UserError(f"recipe field 'rounding': the model has no layer {name!r}; calibrate again")
        plain = nearest(layers[name].weight)
        apply_levels(layers[name], plain + unpack_levels(packed, plain.shape, f"rounding.{name}"))
    for name, offsets in recipe.bias_correction.items():
        bias = getattr(layers.get(name), "bias", None)
        if bias is None or len(bias) != len(offsets):
            raise UserError(
                f"recipe field 'bias_correction.{name}' has {len(offsets)} values, and the model "
                f"{'no such bias' if bias is None else len(bias)}; calibrate again"
            )
        layers[name].bias = torch.nn.Parameter(corrected_bias(bias, offsets), requires_grad=False)
    return shaped


def _folded(model: torch.nn.Module) -> torch.nn.Module:
    return fold_for_quantization(model) if isinstance(model, EdgeNeXt) else copy.deepcopy(model).eval()


def _equalize(model: EdgeNeXt, images: ImageSet, preprocessing: Preprocessing, steps: Steps) -> Equalization:
    attention, norms = {}, {}
    if steps.equalize:
        attention = choose_attention_exponents(model, image_batches(images, preprocessing, EQUALIZATION_IMAGES))
        apply_equalization(model, Equalization(attention=attention))
    if steps.equalize_norms:
        norms = choose_norm_exponents(model, image_batches(images, preprocessing, EQUALIZATION_IMAGES))
        apply_equalization(model, Equalization(norms=norms))
    return Equalization(attention=attention, norms=norms)


def _round(model: torch.nn.Module, images: ImageSet, preprocessing: Preprocessing, budget_s: float) -> dict[str, str]:
    deadline = time.monotonic() + budget_s
    seen, held_out = split_images(images)
    moments = input_moments(model, image_batches(seen, preprocessing, ROUNDING_IMAGES))
    held_out_moments = input_moments(model, image_batches(held_out, preprocessing, ROUNDING_IMAGES // 4))
    rounding = {}
    for name, layer in anchors(model).items():
        if time.monotonic() > deadline:
            break
        if name not in moments:
            continue
        levels = round_weights(layer.weight, moments.pop(name))
        levels = keep_better(layer.weight, levels, held_out_moments.pop(name))
        rounding[name] = pack_levels(levels - nearest(layer.weight))
        apply_levels(layer, levels)
    return rounding
