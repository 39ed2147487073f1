"""What it costs on a board to store a tensor as int16: the kernels that change, measured or counted on their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import tvm

from edgenext_tvm.board import Board
from edgenext_tvm.errors import UserError
from edgenext_tvm.frontend.from_torch import import_program
from edgenext_tvm.passes.pipeline import lower
from edgenext_tvm.quantize.convert import QuantizedProgram
from edgenext_tvm.tune.measure import Candidate, Measurer
from edgenext_tvm.tune.measurers import open_measurer, runner_for
from edgenext_tvm.tune.search import cost_of
from edgenext_tvm.tune.tasks import Task, extract_tasks

Group = tuple[str, ...]
BATCH = 16


@dataclass(frozen=True)
class Prices:
    """Costs in `unit` of one inference on one thread, kernels one after the other at their hand-picked points.

    base: of the program as it is. extra: of each group stored as int16 on its own, above base; may be negative within
    the noise of timing.
    """

    base: float
    extra: dict[Group, float]
    unit: str
    measured_by: str


class Pricer:
    """Prices programs of one model on one board; a kernel is measured once however many programs have it."""

    def __init__(self, board: Board, runner: str | None = None) -> None:
        """UserError if the board can neither be timed here nor emulated."""
        self.board = board
        self._measurer: Measurer = open_measurer(board, runner_for(board, runner))
        self._costs: dict[str, float] = {}

    @property
    def unit(self) -> str:
        return self._measurer.unit

    @property
    def measured_by(self) -> str:
        return self._measurer.name

    def price(
        self,
        base: QuantizedProgram,
        with_int16: Callable[[frozenset[str]], QuantizedProgram],
        groups: Iterable[Group],
        say: Callable[[str], None] = lambda _: None,
    ) -> Prices:
        """with_int16 gives the program in which the tensors of those keys are int16. UserError where a kernel cannot
        be measured.
        """
        programs: dict[Group, tuple[Task, ...]] = {(): self._tasks(base)}
        for group in groups:
            say(f"lowering with {group[0]} as int16")
            programs[group] = self._tasks(with_int16(frozenset(group)))
        kernels = {task.key: task for tasks in programs.values() for task in tasks}
        new = [task for key, task in kernels.items() if key not in self._costs]
        say(f"measuring {len(new)} kernels ({self.measured_by})")
        self._measure(new)
        totals = {group: self._total(tasks) for group, tasks in programs.items()}
        return Prices(
            totals[()],
            {group: total - totals[()] for group, total in totals.items() if group},
            self.unit,
            self.measured_by,
        )

    def close(self) -> None:
        self._measurer.close()

    def _tasks(self, program: QuantizedProgram) -> tuple[Task, ...]:
        module: tvm.IRModule = lower(import_program(program.exported))
        return extract_tasks(module, self.board).all

    def _total(self, tasks: Sequence[Task]) -> float:
        calls = Counter({task.key: 0 for task in tasks})
        for task in tasks:
            calls[task.key] += task.calls
        return sum(self._costs[key] * count for key, count in calls.items())

    def _measure(self, tasks: Sequence[Task]) -> None:
        for first in range(0, len(tasks), BATCH):
            batch = tasks[first : first + BATCH]
            candidates = [Candidate(t.func, {knob.name: knob.default for knob in t.space.knobs}) for t in batch]
            for task, measurement in zip(batch, self._measurer.measure(candidates), strict=True):
                if not measurement.ok:
                    raise UserError(f"kernel {task.name} cannot be measured for {self.board.name}: {measurement.error}")
                self._costs[task.key] = cost_of(measurement.seconds)
