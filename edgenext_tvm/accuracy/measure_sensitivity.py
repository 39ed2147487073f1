"""Each tensor of a build's recipe quantized alone, all others float: what it does to the logits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch

from edgenext_tvm.accuracy.measure_layers import finite
from edgenext_tvm.accuracy.network_inputs import library_input
from edgenext_tvm.accuracy.open_model import MeasuredModel
from edgenext_tvm.quantize.images import ImageSet
from edgenext_tvm.quantize.sensitivity import BATCH, Sensitivity, SwitchedNetwork


def measure_sensitivity(
    model: MeasuredModel, images: ImageSet, say: Callable[[str], None] = lambda line: None
) -> list[Sensitivity]:
    """One entry per scale and per layer's weights, the most harmful first; each as wide as the recipe has it."""
    network = SwitchedNetwork(model.float_model, model.quantized(), min(BATCH, len(images)))
    say(f"{len(network.groups)} tensors and weights one at a time on {len(images)} images, in PyTorch")
    inputs = torch.stack([library_input(images.image(i), model.preprocessing) for i in range(len(images))])
    choice = network.recipe_choice
    found: list[Sensitivity] = []
    for dtype in sorted(set(choice.values())):
        # tensors of one scale are of one width
        groups = [group for group in network.groups if choice[group[0]] == dtype]
        found += network.scan(inputs, groups, dtype)
    return sorted(found, key=lambda entry: -entry.mean_squared_error)


def sensitivity_fields(entries: Sequence[Sensitivity]) -> list[dict[str, object]]:
    """For JSON."""
    return [dataclasses.asdict(entry) | {"sqnr_db": finite(entry.sqnr_db)} for entry in entries]
