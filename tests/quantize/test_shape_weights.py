"""Weights before calibration: what is decided on images is done again from the recipe."""

from __future__ import annotations

import pytest
import torch

from edgenext_tvm.errors import UserError
from edgenext_tvm.model.edgenext import build_model
from edgenext_tvm.model.init_random import init_random
from edgenext_tvm.quantize import Preprocessing, open_images, quantize_model, quantize_with_recipe
from edgenext_tvm.quantize.shape_weights import Steps, reshape_weights, shape_weights

PREPROCESSING = Preprocessing(resize_size=64, crop_size=64)
ALL = Steps(equalize_norms=True)


@pytest.fixture(scope="module")
def model():
    return init_random(build_model("edgenext_xx_small", 10, 64), seed=0)


def test_recipe_gives_the_same_weights_again(model) -> None:
    images = open_images("synthetic:3")
    shaped = shape_weights(model, images, PREPROCESSING, ALL)
    program = quantize_model(model, images, PREPROCESSING, quiet=True, steps=ALL)
    again = reshape_weights(model, program.recipe)
    assert len(program.recipe.equalization.attention) == 3
    assert len(program.recipe.rounding) == 50
    for name, value in shaped.model.state_dict().items():
        if not name.endswith("bias"):
            assert torch.equal(again.state_dict()[name], value), name
    rebuilt = quantize_with_recipe(model, program.recipe)
    for name, value in program.exported.state_dict.items():
        assert torch.equal(rebuilt.exported.state_dict[name], value), name


def test_reference_is_the_model_before_rounding(model) -> None:
    shaped = shape_weights(model, open_images("synthetic:2"), PREPROCESSING, Steps())
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(shaped.reference(x), model(x), rtol=1e-4, atol=1e-4)
    assert not torch.equal(shaped.model.head.fc.weight, shaped.reference.head.fc.weight)


def test_without_steps_weights_are_only_folded(model) -> None:
    steps = Steps(equalize=False, rounding_budget_min=0, bias_correction=False)
    shaped = shape_weights(model, open_images("synthetic:1"), PREPROCESSING, steps)
    assert (shaped.equalization.attention, shaped.equalization.norms, shaped.rounding) == ({}, {}, {})
    assert all(torch.equal(a, b) for a, b in zip(shaped.model.parameters(), shaped.reference.parameters(), strict=True))


def test_a_spent_budget_leaves_weights_at_nearest(model) -> None:
    shaped = shape_weights(model, open_images("synthetic:1"), PREPROCESSING, Steps(rounding_budget_min=1e-9))
    assert shaped.rounding == {}


def test_the_given_model_is_left_alone(small_model, small_preprocessing) -> None:
    before = {name: value.clone() for name, value in small_model.state_dict().items()}
    shape_weights(small_model, open_images("synthetic:2"), small_preprocessing, Steps())
    assert all(torch.equal(value, before[name]) for name, value in small_model.state_dict().items())


def test_impossible_budget() -> None:
    with pytest.raises(UserError, match=r"rounding budget is -1 minutes; allowed: 0 or more"):
        Steps(rounding_budget_min=-1)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("rounding", {"neck": "eJwDAAAAAAE="}, r"'rounding': the model has no layer 'neck'"),
        ("rounding", {"stem": "eJwDAAAAAAE="}, r"'rounding\.stem' does not hold \d+ values"),
        ("bias_correction", {"neck": (0.5,)}, r"'bias_correction\.neck' has 1 values, and the model no such bias"),
        ("bias_correction", {"stem": (0.5,)}, r"'bias_correction\.stem' has 1 values, and the model 12"),
    ],
)
def test_a_recipe_of_another_network_is_refused(small_model, small_program, field, value, message) -> None:
    with pytest.raises(UserError, match=message):
        reshape_weights(small_model, small_program.recipe.model_copy(update={field: value}))
