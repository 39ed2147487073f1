"""Chooses the tensors to store as int16: the cheapest set under which the quantized logits meet a budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from edgenext_tvm.budget.price_wide import Group, Prices
from edgenext_tvm.quantize.observers import Dtype
from edgenext_tvm.quantize.sensitivity import SwitchedNetwork

# To price a tensor is to export and lower the network once: so many at a time, those of the largest errors first.
MIN_PRICED, MAX_PRICED = 4, 8
# Kernels that get no slower still count for something, so that the larger gain goes first.
MIN_EXTRA_SHARE = 1e-5
_INT16: Dtype = "int16"


@dataclass(frozen=True)
class Goal:
    """What the quantized logits must reach against the float ones: exactly one of the two.

    sqnr_db: 10 log10(signal power / error power) of the logits. points: how many points of top-1 may be lost; without
        labels, the share of images whose best class changes, in percent, which bounds it.
    """

    sqnr_db: float | None = None
    points: float | None = None

    def __str__(self) -> str:
        return f"{self.sqnr_db:g} dB" if self.sqnr_db is not None else f"{self.points:g} points"


@dataclass(frozen=True)
class Quality:
    """Of quantized logits against float ones. lost_points: see Goal.points."""

    sqnr_db: float
    agreement: float
    lost_points: float

    def meets(self, goal: Goal) -> bool:
        if goal.sqnr_db is not None:
            return self.sqnr_db >= goal.sqnr_db
        assert goal.points is not None
        return self.lost_points <= goal.points


@dataclass(frozen=True)
class Bought:
    """One step of the choice: `group` became int16. extra_cost: what its kernels cost more, in the prices' unit."""

    group: Group
    extra_cost: float
    quality: Quality


@dataclass(frozen=True)
class Choice:
    """What was chosen, in that order. before: with all in int8; after: with the choice."""

    goal: Goal
    before: Quality
    bought: tuple[Bought, ...]
    prices: Prices | None
    met: bool

    @property
    def after(self) -> Quality:
        return self.bought[-1].quality if self.bought else self.before

    @property
    def keys(self) -> frozenset[str]:
        return frozenset(key for step in self.bought for key in step.group)


def measure_quality(logits: Tensor, exact: Tensor, labels: Sequence[int] | None = None) -> Quality:
    """logits, exact: float32 [M,K], quantized and float. labels: class numbers, where all are known."""
    error, signal = float((logits - exact).double().square().sum()), float(exact.double().square().sum())
    found, wanted = logits.argmax(1), exact.argmax(1)
    agreement = float((found == wanted).double().mean())
    lost = 100.0 * (1.0 - agreement)
    if labels is not None:
        known = torch.tensor(labels)
        lost = 100.0 * float((wanted == known).double().mean() - (found == known).double().mean())
    return Quality(math.inf if error == 0.0 else 10.0 * math.log10(max(signal, 1e-300) / error), agreement, lost)


class WideChooser:
    """Tries sets of int16 tensors on one network and one set of inputs, float32 [M,3,S,S]."""

    def __init__(self, network: SwitchedNetwork, inputs: Tensor, labels: Sequence[int] | None = None) -> None:
        self.network, self.inputs, self.labels = network, inputs, labels
        self.exact = network.logits(inputs, {})
        self._all: dict[str, Dtype] = {key: "int8" for group in network.groups for key in group}

    def quality(self, int16: frozenset[str]) -> Quality:
        """With the tensors of these keys as int16, all else as int8."""
        choice = self._all | dict.fromkeys(int16, _INT16)
        return measure_quality(self.network.logits(self.inputs, choice), self.exact, self.labels)

    def choose(
        self,
        goal: Goal,
        eligible: Sequence[Group],
        price: Callable[[Sequence[Group]], Prices],
        say: Callable[[str], None] = lambda _: None,
    ) -> Choice:
        """Widens tensors in order of error removed per cost until the goal is met or none is left."""
        before = self.quality(frozenset())
        if before.meets(goal) or not eligible:
            return Choice(goal, before, (), None, before.meets(goal))
        say(f"{before.sqnr_db:.1f} dB with int8 alone: measuring what each of {len(eligible)} tensors adds")
        errors = {s.group: s.mean_squared_error for s in self.network.scan(self.inputs, eligible)}
        ranked = sorted(eligible, key=lambda group: -errors[group])
        bought: list[Bought] = []
        prices: Prices | None = None
        quality = before
        while ranked and not quality.meets(goal):
            count = _priced_at_once(ranked, errors, self._error_to_remove(goal, quality))
            batch, ranked = ranked[:count], ranked[count:]
            found = price(batch)
            prices = found if prices is None else replace(found, extra=prices.extra | found.extra)
            for group in _by_worth(batch, errors, found):
                if quality.meets(goal):
                    break
                chosen = frozenset(key for step in bought for key in step.group) | frozenset(group)
                better = self.quality(chosen)
                if goal.sqnr_db is not None and better.sqnr_db <= quality.sqnr_db:
                    continue
                quality = better
                bought.append(Bought(group, found.extra[group], quality))
                say(f"{group[0]} as int16: {quality.sqnr_db:.1f} dB")
        return Choice(goal, before, tuple(bought), prices, quality.meets(goal))

    def _error_to_remove(self, goal: Goal, quality: Quality) -> float:
        # mean squared error of the logits above what the goal allows; without a goal in dB, half of what there is
        power = float(self.exact.double().square().mean())
        allowed = goal.sqnr_db if goal.sqnr_db is not None else quality.sqnr_db + 3.0
        return power * (10 ** (-quality.sqnr_db / 10) - 10 ** (-allowed / 10))


def _priced_at_once(ranked: Sequence[Group], errors: Mapping[Group, float], to_remove: float) -> int:
    total = 0.0
    for index, group in enumerate(ranked[:MAX_PRICED]):
        if index >= MIN_PRICED and total >= to_remove:
            return index
        total += errors[group]
    return min(len(ranked), MAX_PRICED)


def _by_worth(batch: Sequence[Group], errors: Mapping[Group, float], prices: Prices) -> list[Group]:
    floor = prices.base * MIN_EXTRA_SHARE
    return sorted(batch, key=lambda group: -errors[group] / max(prices.extra[group], floor))
