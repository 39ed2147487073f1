"""The order in which the points of a space are measured: hand-picked first, then near the best and at random.

A space has tens to a few hundred points, and a cost model would see the same canonical function for each, so there is
nothing to learn from: half of each batch are single-knob neighbours of the best point so far, half are drawn from what
is left. No point is proposed twice.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping

import tvm
import tvm_ffi
from tvm import s_tir
from tvm.ir.utils import derived_object
from tvm.s_tir import meta_schedule as ms

from edgenext_tvm.schedules.space import Decisions, Space
from edgenext_tvm.tune.points import at_point, design_space, point_of
from edgenext_tvm.tune.tasks import Task

Point = tuple[int, ...]
"""A knob's value each, in the order of the space's knobs."""

LOCAL_SHARE = 0.5


class PointSearch:
    """What to measure next in one space, given what was measured. Seeded: equal histories give equal proposals."""

    def __init__(self, space: Space, seed: int, measured: Mapping[Point, float] | None = None) -> None:
        """measured: cost of each point known already; it is not proposed again."""
        self.space = space
        self.names = [knob.name for knob in space.knobs]
        self.points: list[Point] = [self.point(decisions) for decisions in space.points()]
        self.cost: dict[Point, float] = dict(measured or {})
        self.proposed: set[Point] = set(self.cost)
        self._random = random.Random(seed)
        self._shuffled = self.points[:]
        self._random.shuffle(self._shuffled)

    def point(self, decisions: Decisions) -> Point:
        """Return the point of `decisions`."""
        return tuple(decisions[name] for name in self.names)

    def decisions(self, point: Point) -> dict[str, int]:
        """Return the decisions at `point`."""
        return dict(zip(self.names, point, strict=True))

    @property
    def left(self) -> int:
        """How many points were never proposed."""
        return sum(1 for point in self.points if point not in self.proposed)

    @property
    def best(self) -> Point | None:
        """The cheapest point so far; None before the first measurement."""
        return min(self.cost, key=lambda point: (self.cost[point], point)) if self.cost else None

    def propose(self, count: int) -> list[Point]:
        """Return up to `count` points not proposed before; none when the space is exhausted."""
        batch: list[Point] = []
        for point in self._ordered(count):
            if len(batch) >= count:
                break
            if point not in self.proposed:
                self.proposed.add(point)
                batch.append(point)
        return batch

    def learn(self, costs: Iterable[tuple[Point, float | None]]) -> None:
        """Take measured costs; None for a point that could not be measured."""
        self.cost.update((point, cost) for point, cost in costs if cost is not None)

    def _ordered(self, count: int) -> Iterator[Point]:
        yield self.point(self.space.default)
        best = self.best
        if best is not None:
            near = [point for point in self._neighbours(best) if point not in self.proposed]
            self._random.shuffle(near)
            # nearest steps of each knob first: costs are smooth in most of them
            near.sort(key=lambda point: self._distance(point, best))
            yield from near[: max(1, int(count * LOCAL_SHARE))]
        yield from self._shuffled

    def _neighbours(self, point: Point) -> list[Point]:
        return [other for other in self.points if sum(a != b for a, b in zip(point, other, strict=True)) == 1]

    def _distance(self, point: Point, other: Point) -> int:
        return sum(
            abs(knob.values.index(a) - knob.values.index(b))
            for knob, a, b in zip(self.space.knobs, point, other, strict=True)
        )


@derived_object
class KnobSearch(ms.search_strategy.PySearchStrategy):
    """PointSearch as MetaSchedule's search strategy: points become traces of the design space."""

    def __init__(self, search: PointSearch, mod: tvm.IRModule) -> None:
        self.search, self.mod = search, mod
        self.design: s_tir.Schedule | None = None
        self.left = 0
        self.batch = 0

    def _initialize_with_tune_context(self, context: ms.TuneContext) -> None:
        assert tvm_ffi.structural_equal(context.mod, self.mod)

    def pre_tuning(
        self,
        max_trials: int,
        num_trials_per_iter: int,
        design_spaces: list[s_tir.Schedule],
        database: ms.database.Database | None = None,
        cost_model: ms.cost_model.CostModel | None = None,
    ) -> None:
        self.left, self.batch = max_trials, num_trials_per_iter
        (self.design,) = design_spaces

    def post_tuning(self) -> None:
        self.design = None

    def generate_measure_candidates(self) -> list[ms.MeasureCandidate] | None:
        points = self.search.propose(min(self.left, self.batch))
        if not points:
            return None
        self.left -= len(points)
        arguments = ms.arg_info.ArgInfo.from_entry_func(self.mod, True)
        schedules = [at_point(self.design, self.search.space, self.search.decisions(point)) for point in points]
        return [ms.MeasureCandidate(schedule, arguments) for schedule in schedules]

    def notify_runner_results(
        self, measure_candidates: list[ms.MeasureCandidate], results: list[ms.runner.RunnerResult]
    ) -> None:
        points = (self.search.point(point_of(candidate.sch)[1]) for candidate in measure_candidates)
        self.search.learn(
            (point, cost_of([float(s) for s in result.run_secs]) if result.run_secs else None)
            for point, result in zip(points, results, strict=True)
        )

    def clone(self) -> KnobSearch:
        return KnobSearch(PointSearch(self.search.space, 0, self.search.cost), self.mod)


def cost_of(seconds: list[float] | tuple[float, ...]) -> float:
    """Return the number that ranks a candidate: the median of its rounds, which one disturbed round does not move."""
    ordered = sorted(seconds)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def open_search(task: Task, search: PointSearch, max_trials: int, batch: int) -> ms.search_strategy.SearchStrategy:
    """Return MetaSchedule's strategy for `task`, ready to propose; points come from `search`.

    Driven without a TuneContext: making one imports TVM's stock tensor intrinsics, over 20 s of parsing CUDA kernels.
    """
    mod = tvm.IRModule({"main": task.func})
    strategy = KnobSearch(search, mod)
    strategy.pre_tuning(max_trials, batch, list(design_space(task.space).generate_design_space(mod)), None, None)
    return strategy
