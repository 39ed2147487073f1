"""The choice goes by error removed per cost, stops at the goal, and says what each tensor bought."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from edgenext_tvm.budget.choose_wide import Goal, WideChooser, measure_quality
from edgenext_tvm.budget.price_wide import Group, Prices
from edgenext_tvm.quantize.sensitivity import Sensitivity

GROUPS: list[Group] = [("stem",), ("add",), ("mean", "norm"), ("tiny",)]
# what each group adds to the logits while it is int8
NOISE = {"stem": 0.30, "add": 0.20, "mean": 0.50, "norm": 0.0, "tiny": 0.001}


class AdditiveNetwork:
    """Every int8 tensor moves all logits of its own channel by a fixed amount; int16 and float move nothing."""

    groups = GROUPS

    def logits(self, inputs: Tensor, choice: dict[str, str]) -> Tensor:
        noise = [NOISE[key] if choice.get(key) == "int8" else 0.0 for key in NOISE]
        return inputs + torch.tensor(noise)

    def scan(self, inputs: Tensor, groups: Sequence[Group]) -> list[Sensitivity]:
        errors = [sum(NOISE[key] ** 2 for key in group) for group in groups]
        return [Sensitivity(group, error, 0.0, 1.0) for group, error in zip(groups, errors, strict=True)]


def price_at(costs: dict[str, float], asked: list[Group]):
    def price(groups: Sequence[Group]) -> Prices:
        asked.extend(groups)
        return Prices(100.0, {group: costs[group[0]] for group in groups}, "s", "local")

    return price


CHEAP = {"stem": 1.0, "add": 1.0, "mean": 1.0, "tiny": 1.0}
INPUTS = torch.full((4, 5), 10.0)


def chooser(labels: Sequence[int] | None = None) -> WideChooser:
    return WideChooser(AdditiveNetwork(), INPUTS, labels)  # type: ignore[arg-type]


def test_a_goal_that_int8_meets_costs_nothing_and_prices_nothing() -> None:
    asked: list[Group] = []
    choice = chooser().choose(Goal(sqnr_db=10.0), GROUPS, price_at(CHEAP, asked))
    assert choice.met and not choice.bought and not asked and choice.after == choice.before


def test_at_equal_cost_the_largest_error_goes_first_and_no_more_than_needed() -> None:
    # signal 500 a row, noise 0.25 + 0.09 + 0.04: without the mean 35.8 dB, without mean and stem 41 dB
    choice = chooser().choose(Goal(sqnr_db=40.0), GROUPS, price_at(CHEAP, []))
    assert [step.group for step in choice.bought] == [("mean", "norm"), ("stem",)]
    assert choice.met and choice.after.sqnr_db == pytest.approx(40.97, abs=0.01)
    assert choice.keys == {"mean", "norm", "stem"}


def test_a_dear_tensor_gives_way_to_cheap_ones_that_do_as_well() -> None:
    dear = CHEAP | {"mean": 1000.0}
    choice = chooser().choose(Goal(sqnr_db=32.3), GROUPS, price_at(dear, []))
    assert [step.group for step in choice.bought] == [("stem",)], "34 dB needs the mean, 32.3 dB does not"
    assert choice.bought[0].extra_cost == 1.0


def test_a_goal_out_of_reach_takes_all_that_helps_and_says_so() -> None:
    choice = chooser().choose(Goal(sqnr_db=119.0), [("stem",), ("add",)], price_at(CHEAP, []))
    assert not choice.met and len(choice.bought) == 2


def test_nothing_eligible_is_not_met() -> None:
    choice = chooser().choose(Goal(sqnr_db=119.0), [], price_at(CHEAP, []))
    assert not choice.met and not choice.bought and choice.prices is None


def test_lost_points_are_of_labels_where_there_are_any_else_of_changed_classes() -> None:
    exact = torch.tensor([[2.0, 1.0], [2.0, 1.0], [1.0, 2.0], [1.0, 2.0]])
    found = exact.clone()
    found[0] = torch.tensor([1.0, 2.0])
    assert measure_quality(found, exact).lost_points == pytest.approx(25.0)
    # the float model was wrong there, so nothing is lost
    assert measure_quality(found, exact, [1, 0, 1, 1]).lost_points == pytest.approx(-25.0)
    assert measure_quality(exact, exact).sqnr_db == float("inf")


@pytest.mark.parametrize(("goal", "text"), [(Goal(sqnr_db=34.0), "34 dB"), (Goal(points=0.5), "0.5 points")])
def test_goals_read_as_what_was_asked(goal: Goal, text: str) -> None:
    assert str(goal) == text
