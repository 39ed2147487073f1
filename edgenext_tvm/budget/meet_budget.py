"""From a recipe that is all int8 to one that meets a budget, with an account of what each int16 tensor bought."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from edgenext_tvm.board import Board
from edgenext_tvm.budget.choose_wide import Choice, Goal, Quality, WideChooser
from edgenext_tvm.budget.price_wide import Group, Pricer, Prices
from edgenext_tvm.errors import UserError
from edgenext_tvm.model.edgenext import EdgeNeXt
from edgenext_tvm.quantize.calibrate import image_batches
from edgenext_tvm.quantize.convert import QuantizedProgram, quantize_with_recipe
from edgenext_tvm.quantize.images import ImageSet
from edgenext_tvm.quantize.insert_qdq import insert_observers
from edgenext_tvm.quantize.recipe import ActivationQParams, Recipe
from edgenext_tvm.quantize.sensitivity import SwitchedNetwork
from edgenext_tvm.quantize.shape_weights import reshape_weights
from edgenext_tvm.quantize.wide import eligible_wide

# The ratio of powers settles on few images; a share of images that change needs many.
SQNR_IMAGES = 16
ACCURACY_IMAGES = 256
# The images judged by took part in calibration; others come out up to 0.8 dB worse on random weights.
SQNR_MARGIN_DB = 1.0
MAX_SQNR_DB, MAX_POINTS = 120.0, 100.0


def make_goal(sqnr_budget: float | None, accuracy_budget: float | None) -> Goal | None:
    """The goal that the user's options mean, None where there is none. UserError where they make no sense."""
    if sqnr_budget is None and accuracy_budget is None:
        return None
    if sqnr_budget is not None and accuracy_budget is not None:
        raise UserError("--sqnr-budget and --accuracy-budget exclude each other; remove one of them")
    if sqnr_budget is not None and not 0.0 < sqnr_budget <= MAX_SQNR_DB:
        raise UserError(f"--sqnr-budget is {sqnr_budget:g} dB; allowed: above 0, up to {MAX_SQNR_DB:g} (try 34)")
    if accuracy_budget is not None and not 0.0 <= accuracy_budget <= MAX_POINTS:
        raise UserError(f"--accuracy-budget is {accuracy_budget:g} points; allowed: 0 to {MAX_POINTS:g} (try 0.5)")
    return Goal(sqnr_budget, accuracy_budget)


def meet_budget(
    model: EdgeNeXt,
    program: QuantizedProgram,
    images: ImageSet,
    goal: Goal,
    board: Board,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[QuantizedProgram, Choice]:
    """The program with the cheapest set of int16 tensors that meets `goal` on `images`, or with all that help.

    A goal in dB is met with SQNR_MARGIN_DB to spare, so that it holds on other images.

    model: the float model that the program was made from. images: those of calibration; at most SQNR_IMAGES or
    ACCURACY_IMAGES of them are used. board: whose kernels are measured, or counted by its emulator.
    """
    recipe = program.recipe
    if any(params.dtype == "int16" for params in recipe.activations.values()):
        raise UserError("the recipe has int16 tensors already; give a budget with a recipe that is all int8, or none")
    used = images.select(SQNR_IMAGES if goal.sqnr_db is not None else ACCURACY_IMAGES, images.seed + 1)
    inputs = torch.cat(list(image_batches(used, recipe.preprocessing)))
    labels = [used.label(index) for index in range(len(used))]
    network = SwitchedNetwork(model, recipe, min(len(inputs), SQNR_IMAGES))
    with torch.no_grad():
        exported = torch.export.export(reshape_weights(model, recipe), (torch.zeros(1, *inputs.shape[1:]),))
    eligible: list[Group] = eligible_wide(exported.module())  # type: ignore[arg-type]
    network.wide = observe_wide(model, recipe, inputs, eligible)
    chooser = WideChooser(network, inputs, None if None in labels else [int(label or 0) for label in labels])
    pricers: list[Pricer] = []

    def price(groups: Sequence[Group]) -> Prices:
        if not pricers:
            pricers.append(Pricer(board))
        return pricers[0].price(program, lambda keys: quantize_with_recipe(model, widen(keys)), groups, say)

    def widen(keys: frozenset[str]) -> Recipe:
        return recipe.model_copy(
            update={"activations": recipe.activations | {key: network.wide[key] for key in sorted(keys)}}
        )

    try:
        choice = chooser.choose(_with_margin(goal), eligible, price, say)
    finally:
        for pricer in pricers:
            pricer.close()
    choice = replace(choice, goal=goal, met=choice.after.meets(goal))
    return (quantize_with_recipe(model, widen(choice.keys)) if choice.bought else program), choice


def _with_margin(goal: Goal) -> Goal:
    return goal if goal.sqnr_db is None else Goal(sqnr_db=goal.sqnr_db + SQNR_MARGIN_DB)


def observe_wide(
    model: EdgeNeXt, recipe: Recipe, inputs: Tensor, groups: Sequence[Group]
) -> dict[str, ActivationQParams]:
    """int16 parameters of the tensors of `groups` from what they hold on `inputs`, float32 [M,3,S,S]."""
    keys = frozenset(key for group in groups for key in group)
    example = torch.zeros(1, *inputs.shape[1:])
    prepared, observers = insert_observers(reshape_weights(model, recipe), example, recipe.observer, keys)
    with torch.no_grad():
        for x in inputs.split(1):
            prepared(x)
    found: dict[str, ActivationQParams] = {}
    for observer in observers:
        if observer.width == "int16":
            scale, zero_point = observer.qparams()
            found |= {
                key: ActivationQParams(scale=scale, zero_point=zero_point, dtype="int16") for key in observer.keys
            }
    return found


def choice_fields(choice: Choice) -> dict[str, Any]:
    """The choice as JSON values: what was asked, before and after, and what each tensor bought at what cost."""

    def quality(value: Quality) -> dict[str, float]:
        return {"sqnr_db": value.sqnr_db, "agreement": value.agreement, "lost_points": value.lost_points}

    prices = choice.prices
    return {
        "goal": {"sqnr_db": choice.goal.sqnr_db, "points": choice.goal.points},
        "met": choice.met,
        "before": quality(choice.before),
        "after": quality(choice.after),
        "unit": prices.unit if prices else None,
        "measured_by": prices.measured_by if prices else None,
        "base_cost": prices.base if prices else None,
        "int16": [
            {"tensors": list(step.group), "extra_cost": step.extra_cost, **quality(step.quality)}
            for step in choice.bought
        ],
    }
