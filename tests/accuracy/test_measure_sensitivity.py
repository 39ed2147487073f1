"""The scan of a build: every scale and every layer's weights once, the most harmful first."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from edgenext_tvm.accuracy.measure_sensitivity import measure_sensitivity, sensitivity_fields
from edgenext_tvm.accuracy.network_inputs import library_input
from edgenext_tvm.accuracy.open_model import MeasuredModel
from edgenext_tvm.errors import UserError
from edgenext_tvm.quantize import open_images
from edgenext_tvm.quantize.sensitivity import SwitchedNetwork


def test_everything_is_scanned_once_and_sorted(small: MeasuredModel) -> None:
    found = measure_sensitivity(small, open_images("synthetic:3"))
    keys = [key for entry in found for key in entry.group]
    weights = ["stem.weight", "conv.weight", "mlp.fc1.weight", "mlp.fc2.weight", "fc.weight"]
    assert sorted(keys) == sorted([*small.quantized().activations, *weights])
    errors = [entry.mean_squared_error for entry in found]
    assert errors == sorted(errors, reverse=True) and errors[-1] > 0
    assert len(json.loads(json.dumps(sensitivity_fields(found), allow_nan=False))) == len(found)


def test_a_tensor_is_scanned_in_the_recipes_own_width(small: MeasuredModel) -> None:
    recipe = small.quantized()
    mean = recipe.activations[":mean"]
    assert mean.dtype == "int16"
    images = open_images("synthetic:3")
    (found,) = [entry for entry in measure_sensitivity(small, images) if entry.group == (":mean",)]
    inputs = torch.stack([library_input(images.image(i), small.preprocessing) for i in range(3)])
    network = SwitchedNetwork(small.float_model, recipe, 3)
    assert [found] == network.scan(inputs, [(":mean",)], "int16")
    assert found.mean_squared_error < network.scan(inputs, [(":mean",)], "int8")[0].mean_squared_error / 16


def test_a_float32_build_is_refused(small: MeasuredModel) -> None:
    with pytest.raises(UserError, match="nothing in it is quantized"):
        measure_sensitivity(dataclasses.replace(small, recipe=None), open_images("synthetic:1"))
