"""A budget on a real variant: the chosen tensors are int16 in the program, and the program reaches the goal."""

from __future__ import annotations

import pytest
import torch

from edgenext_tvm.board import load_board
from edgenext_tvm.budget.choose_wide import measure_quality
from edgenext_tvm.budget.meet_budget import choice_fields, make_goal, meet_budget
from edgenext_tvm.errors import UserError
from edgenext_tvm.model.edgenext import build_model
from edgenext_tvm.model.init_random import init_random
from edgenext_tvm.quantize import Preprocessing, open_images, quantize_model
from edgenext_tvm.quantize.calibrate import image_batches
from edgenext_tvm.quantize.shape_weights import Steps
from edgenext_tvm.report.budget_tables import budget_sentence, budget_table

SIDE = 64


@pytest.fixture(scope="module")
def quantized():
    model = init_random(build_model("edgenext_xx_small", 10, SIDE, seed=1), 1)
    images = open_images("synthetic:16")
    preprocessing = Preprocessing(resize_size=SIDE, crop_size=SIDE)
    return model, images, quantize_model(model, images, preprocessing, quiet=True, steps=Steps(rounding_budget_min=0))


@pytest.mark.slow
def test_the_program_reaches_a_goal_beyond_int8(quantized):
    model, images, program = quantized
    inputs = torch.cat(list(image_batches(images, program.recipe.preprocessing)))

    def sqnr_db(candidate):
        with torch.no_grad():
            return measure_quality(torch.cat([candidate(x) for x in inputs.split(1)]), model(inputs)).sqnr_db

    goal = sqnr_db(program) + 1.0
    better, choice = meet_budget(model, program, images, make_goal(goal, None), load_board("host"))
    assert choice.met and choice.bought and choice.prices.base > 0
    wide = {key for key, params in better.recipe.activations.items() if params.dtype == "int16"}
    assert wide == choice.keys
    # the chooser's network and the QDQ program differ by the order of float sums, which tips some roundings
    assert sqnr_db(better) > goal - 0.5
    fields = choice_fields(choice)
    assert f"{goal:g} dB met" in budget_sentence(fields) and budget_table(fields).row_count == 1 + len(choice.bought)


def test_a_goal_that_int8_meets_leaves_the_program_alone(quantized):
    model, images, program = quantized
    same, choice = meet_budget(model, program, images, make_goal(5.0, None), load_board("host"))
    assert same is program and choice.met
    assert "met by int8 alone" in budget_sentence(choice_fields(choice))


def test_a_recipe_with_int16_tensors_is_refused(quantized):
    model, images, program = quantized
    key, params = next(iter(program.recipe.activations.items()))
    wide = {key: params.model_copy(update={"dtype": "int16"})}
    recipe = program.recipe.model_copy(update={"activations": program.recipe.activations | wide})
    program = type(program)(program.exported, recipe)
    with pytest.raises(UserError, match="has int16 tensors already; give a budget with a recipe that is all int8"):
        meet_budget(model, program, images, make_goal(5.0, None), load_board("host"))


@pytest.mark.parametrize(
    ("sqnr", "points", "message"),
    [
        (34.0, 0.5, "exclude each other"),
        (0.0, None, "--sqnr-budget is 0 dB; allowed: above 0, up to 120"),
        (float("nan"), None, "--sqnr-budget is nan dB"),
        (None, -1.0, "--accuracy-budget is -1 points; allowed: 0 to 100"),
    ],
)
def test_goals_that_make_no_sense_are_refused(sqnr, points, message):
    with pytest.raises(UserError, match=message):
        make_goal(sqnr, points)


def test_without_a_budget_there_is_no_goal():
    assert make_goal(None, None) is None
