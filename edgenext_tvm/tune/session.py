"""One tuning session: noise, defaults, then task by task in order of share; every result on disk before the next.

A task ends with its best points measured against the hand-picked one side by side, and only what beats it by more than
the noise becomes what `compile` uses. So whatever ends a session, tasks that ended are tuned, others keep points.
"""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone

from tvm.s_tir import meta_schedule as ms

from edgenext_tvm.errors import UserError
from edgenext_tvm.tune.database import TuningDatabase
from edgenext_tvm.tune.interrupt import Interruptible
from edgenext_tvm.tune.manifest import Progress, TunedModel, Winner
from edgenext_tvm.tune.measure import Candidate, Measurement, Measurer, MeasurerLost
from edgenext_tvm.tune.noise import measure_noise
from edgenext_tvm.tune.points import point_of
from edgenext_tvm.tune.progress import Display
from edgenext_tvm.tune.search import Point, PointSearch, cost_of, open_search
from edgenext_tvm.tune.tasks import Task, Tasks
from edgenext_tvm.tune.tuned import function_hash

MIN_BATCH = 8
FINALISTS = 2
# equal code at another place in a program differs by this much, which copies within one program do not show
MIN_GAIN = 0.005
DEFAULT_TRIALS = 32


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(eq=False)
class TaskState:
    """A task on its way. Costs are of one call, in the measurer's unit.

    trials  measured or failed points of this session
    known   points that the database had before
    """

    task: Task
    search: PointSearch
    known: int
    default_cost: float | None = None
    share: float = 0.0
    trials: int = 0
    errors: int = 0
    first_error: str = ""
    winner: Winner | None = None

    @property
    def best_cost(self) -> float | None:
        """The least cost measured so far."""
        return None if self.search.best is None else self.search.cost[self.search.best]


@dataclass
class Outcome:
    """What a session came to. fixed_cost: of one inference's calls of kernels with nothing to choose.

    outdated: records that are no point of today's spaces
    """

    states: list[TaskState]
    fixed_cost: float
    noise: float
    unit: str
    trials: int
    seconds: float
    interrupted: bool = False
    outdated: int = 0
    error: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def decided(self) -> list[TaskState]:
        """Tasks with a winner."""
        return [state for state in self.states if state.winner is not None]

    @property
    def default_total(self) -> float:
        """Cost of one inference with the hand-picked points: kernels one after the other, on one thread."""
        costs = (s.task.calls * (s.winner.default_cost if s.winner else _cost(s)) for s in self.states)
        return self.fixed_cost + sum(costs)

    @property
    def tuned_total(self) -> float:
        """The same with the winners."""
        costs = (s.task.calls * (s.winner.best_cost if s.winner else _cost(s)) for s in self.states)
        return self.fixed_cost + sum(costs)

    @property
    def geometric_mean(self) -> float:
        """Of the decided tasks' speed-ups; 1 for a task that keeps its default."""
        gains = [math.log(s.winner.default_cost / s.winner.best_cost) for s in self.decided if s.winner]
        return math.exp(sum(gains) / len(gains)) if gains else 1.0


def _cost(state: TaskState) -> float:
    return state.default_cost or 0.0


class NothingMeasured(Exception):
    """No candidate at all could be built and run; the message shows the first error."""


class Session:
    """See the module docstring."""

    def __init__(self, database: TuningDatabase, measurer: Measurer, tasks: Tasks, display: Display, plan: Progress):
        """plan: the budget, and what an earlier part of this session has used of it."""
        self.database, self.measurer, self.tasks, self.display, self.plan = database, measurer, tasks, display, plan
        self.batch = max(MIN_BATCH, 2 * measurer.parallel)
        self.outdated = 0
        self.states = [self._state(task) for task in tasks.tunable]
        self.noise = 0.0
        self.fixed_cost = 0.0
        self.trials = 0
        self.started = time.monotonic()
        self.spent_before = plan.spent_s
        self.interruptible = Interruptible()

    def _state(self, task: Task) -> TaskState:
        known, outdated = self.database.measured(task)
        self.outdated += outdated
        costs = {point: cost_of(seconds) for point, seconds in known.items()}
        state = TaskState(task, PointSearch(task.space, zlib.crc32(task.key.encode()), costs), len(known))
        state.trials = self.plan.trials_done.get(task.key, 0)
        winner = self.database.manifest.winners.get(task.key)
        key = (function_hash(task.func), task.space.family)
        if winner is not None and (winner.structural_hash, winner.family) == key:
            state.winner = winner
        return state

    @property
    def spent_s(self) -> float:
        """Of the time budget, in all parts of this session."""
        return self.spent_before + time.monotonic() - self.started

    @property
    def remaining_s(self) -> float | None:
        """Of the time budget; None where there is none."""
        return None if self.plan.time_budget_s is None else max(0.0, self.plan.time_budget_s - self.spent_s)

    def run(self) -> Outcome:
        """Tune. NothingMeasured if no candidate worked; UserError if the disk or the device fails; saves first."""
        with self.interruptible:
            try:
                self._prepare()
                for state in self.states:
                    if state.default_cost is not None:
                        self._tune(state)
            except KeyboardInterrupt:
                return self._finish(interrupted=True)
            except MeasurerLost as lost:
                self._finish(error=str(lost))
                # an empty database goes away again, and with it what could be resumed
                kept = len(self.database)
                safe = f"the {kept} points on disk are safe: go on with --resume"
                advice = safe if kept else "nothing was measured yet"
                raise UserError(f"{lost}; {advice}") from None
            finally:
                # whatever ends a session: a live display that goes on would leave the terminal without a cursor
                self.display.end()
        return self._finish()

    def _prepare(self) -> None:
        self.database.manifest.measured_by = self.measurer.name
        self.database.manifest.measured = self.measurer.describe()
        self._save()
        self._measure_defaults()
        self._measure_noise()
        total = self.fixed_cost + sum(state.task.calls * _cost(state) for state in self.states)
        for state in self.states:
            state.share = state.task.calls * _cost(state) / total if total else 0.0
        self.states.sort(key=lambda state: -state.share)
        self._save()
        self.display.begin(self.states, self.noise, self.measurer.unit)

    def _measure_defaults(self) -> None:
        """All of them anew, in one batch: shares compare best that way. Kernels without a choice count for the sum."""
        kernels = [*(state.task for state in self.states), *self.tasks.fixed]
        self.display.say(f"measuring {len(kernels)} kernels at their hand-picked points")
        measured = self._measure([Candidate(task.func, task.space.default) for task in kernels])
        errors = [m.error for m in measured if m.error]
        if len(errors) == len(measured):
            self._save()
            raise NothingMeasured(f"not one of {len(measured)} kernels could be measured; the first error: {errors[0]}")
        for state, measurement in zip(self.states, measured, strict=False):
            if measurement.error:
                state.errors, state.first_error = 1, measurement.error
            else:
                state.default_cost = cost_of(measurement.seconds)
        for task, measurement in zip(self.tasks.fixed, measured[len(self.states) :], strict=True):
            if measurement.error:
                self.display.say(f"not measured: {task.name}: {measurement.error.splitlines()[0]}")
            else:
                self.fixed_cost += task.calls * cost_of(measurement.seconds)

    def _measure_noise(self) -> None:
        """A/A: the task with the largest share, several times in one batch."""
        known = [state for state in self.states if state.default_cost is not None]
        if not known:
            return
        largest = max(known, key=lambda state: state.task.calls * _cost(state)).task
        with self.interruptible.waiting():
            noise = measure_noise(self.measurer, Candidate(largest.func, largest.space.default))
        self.noise = self.database.manifest.noise = noise.relative
        self.display.say(str(noise))

    def _tune(self, state: TaskState) -> None:
        start, allotted = time.monotonic(), self._allotted(state)
        trials_left = self.plan.trials - state.trials
        if allotted <= 0 or trials_left <= 0 or not state.search.left:
            if state.winner is None and state.search.cost and allotted > 0:
                self._decide(state)
            return
        strategy = open_search(state.task, state.search, trials_left, self.batch)
        measured = 0
        while time.monotonic() - start < allotted:
            self.interruptible.check()
            proposed = strategy.generate_measure_candidates()
            if proposed is None:
                break
            candidates = list(proposed)
            measured += self._trial(state, strategy, candidates)
            self.display.update(state, self.remaining_s, self._estimate_s())
        if measured or state.winner is None:
            self._decide(state)

    def _allotted(self, state: TaskState) -> float:
        """Seconds for `state`: its share among the tasks that are still to come, of what is left."""
        if self.remaining_s is None:
            return math.inf
        coming = self.states[self.states.index(state) :]
        total = sum(s.share for s in coming if s.default_cost is not None)
        return self.remaining_s * (state.share / total if total else 1.0)

    def _estimate_s(self) -> float:
        """Seconds that the trials still to come would take at the pace so far."""
        left = sum(min(self.plan.trials - s.trials, s.search.left) for s in self.states if s.default_cost is not None)
        return max(0, left) * (time.monotonic() - self.started) / max(1, self.trials)

    def _trial(
        self, state: TaskState, strategy: ms.search_strategy.SearchStrategy, candidates: Sequence[ms.MeasureCandidate]
    ) -> int:
        points = [point_of(candidate.sch)[1] for candidate in candidates]
        lost = None
        try:
            measured = self._measure([Candidate(state.task.func, point) for point in points])
        except MeasurerLost as error:
            lost, measured = error, list(error.measurements)
        for candidate, measurement in zip(candidates, measured, strict=False):
            if measurement.error and lost is not None:
                # the device's fault, and no trial: it is tried again when the device is back
                continue
            state.trials += 1
            self.trials += 1
            if measurement.error:
                # not recorded: another run tries again, since a device that died is no property of a point
                state.errors += 1
                state.first_error = state.first_error or measurement.error
            else:
                self.database.commit(state.task, candidate, measurement.seconds)
        self.plan.trials_done[state.task.key] = state.trials
        if lost is not None:
            raise lost
        results = [ms.runner.RunnerResult(list(m.seconds) or None, m.error) for m in measured]
        strategy.notify_runner_results(list(candidates), results)
        self._save()
        return sum(1 for m in measured if m.ok)

    def _decide(self, state: TaskState) -> None:
        """Measure the best points against the default, the default twice; the winner goes into the manifest."""
        self.interruptible.check()
        search, space = state.search, state.task.space
        default = search.point(space.default)
        ranked = sorted((point for point in search.cost if point != default), key=lambda p: (search.cost[p], p))
        finalists = ranked[:FINALISTS]
        points = [default, *finalists, default]
        measured = self._measure([Candidate(state.task.func, search.decisions(point)) for point in points])
        first, *others, again = measured
        if not (first.ok and again.ok):
            state.errors += 1
            state.first_error = state.first_error or str(first.error or again.error)
            return
        a, b = cost_of(first.seconds), cost_of(again.seconds)
        default_cost, spread = (a + b) / 2, abs(a - b) / max(a, b)
        winner, cost = self._best(finalists, others, default, default_cost, max(self.noise, spread, MIN_GAIN))
        state.winner = Winner(
            family=space.family,
            structural_hash=function_hash(state.task.func),
            decisions=search.decisions(winner),
            is_default=winner == default,
            default_cost=default_cost,
            best_cost=cost,
            spread=spread,
            trials=len(search.cost),
        )
        self.database.manifest.winners[state.task.key] = state.winner
        self._save()
        self.display.decided(state)

    def _best(
        self, points: Sequence[Point], measured: Sequence[Measurement], default: Point, cost: float, noise: float
    ) -> tuple[Point, float]:
        """The cheapest of `points` if it beats the default by more than the noise, else the default."""
        valid = [(cost_of(m.seconds), point) for point, m in zip(points, measured, strict=True) if m.ok]
        best_cost, best = min(valid, default=(math.inf, default))
        return (best, best_cost) if best_cost * (1 + noise) < cost else (default, cost)

    def _measure(self, batch: Sequence[Candidate]) -> list[Measurement]:
        if not batch:
            return []
        with self.interruptible.waiting():
            return self.measurer.measure(batch)

    def _save(self) -> None:
        self.plan.spent_s = round(self.spent_s, 3)
        self.database.manifest.session = self.plan
        self.database.manifest.date = now()
        self.database.save_manifest()

    def _finish(self, interrupted: bool = False, error: str = "") -> Outcome:
        self.display.end()
        self.plan.finished = not interrupted and not error
        if self.plan.finished:
            size = self.plan.options.get("input_size")
            entry = TunedModel(model=self.plan.model, input_size=size, trials=self.trials, date=now())
            others = [m for m in self.database.manifest.models if (m.model, m.input_size) != (entry.model, size)]
            self.database.manifest.models = (*others, entry)
        self._save()
        seconds = time.monotonic() - self.started
        return Outcome(
            self.states, self.fixed_cost, self.noise, self.measurer.unit, self.trials, seconds, interrupted,
            self.outdated, error, list(self.measurer.notes()),
        )  # fmt: skip
