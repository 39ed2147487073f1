"""Live progress: one line that is rewritten on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.table import Table

from edgenext_tvm.report.tuning_tables import cost_text

if TYPE_CHECKING:
    from edgenext_tvm.tune.session import TaskState

SHOWN = 12
MIN_NAME = 14
NUMBERS = 64  # columns of a terminal


def minutes(seconds: float) -> str:
    """A duration for people."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


class Display:
    """Shows a session on a console as it goes on."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.unit = "s"
        self.states: Sequence[TaskState] = ()
        self.left = ""
        self._live: Live | None = None

    def say(self, line: str) -> None:
        """One line that stays."""
        self.console.print(f"  {line}", markup=False)

    def begin(self, states: Sequence[TaskState], noise: float, unit: str) -> None:
        """Shows the tasks, the largest share first."""
        self.states, self.unit = states, unit
        points = sum(state.task.size for state in states)
        self.say(f"{len(states)} tasks with {points} points, {sum(s.known for s in states)} of them measured before")
        if self.console.is_terminal:
            self._live = Live(self._table(), console=self.console, transient=True, refresh_per_second=2)
            self._live.start()

    def update(self, state: TaskState, remaining_s: float | None, estimate_s: float) -> None:
        """After each batch."""
        left = min(estimate_s, remaining_s) if remaining_s is not None else estimate_s
        self.left = f"about {minutes(left)} left"
        if self._live is not None:
            self._live.update(self._table(state))
            return
        number = next(i for i, other in enumerate(self.states, 1) if other is state)
        self.say(
            f"[{number}/{len(self.states)}] {state.task.name}: {state.trials} trials, best "
            f"{cost_text(state.best_cost, self.unit)} of {cost_text(state.default_cost, self.unit)} untuned, share "
            f"{state.share:.1%}, {state.errors} errors, {self.left}"
        )

    def decided(self, state: TaskState) -> None:
        """After the side-by-side measurement of a task."""
        winner = state.winner
        assert winner is not None
        if self._live is not None:
            self._live.update(self._table(state))
            return
        gain = winner.default_cost / winner.best_cost
        verdict = "keeps the default" if winner.is_default else f"{gain:.2f}x with {winner.decisions}"
        self.say(f"{state.task.name}: {verdict} (spread {winner.spread:.1%})")

    def end(self) -> None:
        """Leaves the terminal as it was."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _table(self, current: TaskState | None = None) -> Table:
        table = Table(title=self.left, title_justify="left", box=None)
        # a long name is cut, never a number
        table.add_column("task", no_wrap=True, max_width=max(MIN_NAME, self.console.width - NUMBERS))
        for heading in ("share", "untuned", "best", "trials", "errors"):
            table.add_column(heading, justify="right", no_wrap=True)
        at = self.states.index(current) if current is not None else 0
        first = max(0, min(at - SHOWN // 2, len(self.states) - SHOWN))
        for state in self.states[first : first + SHOWN]:
            table.add_row(
                state.task.name,
                f"{state.share:.1%}",
                cost_text(state.default_cost, self.unit),
                cost_text(state.best_cost, self.unit),
                f"{state.trials}/{state.task.size}",
                str(state.errors),
                style="bold" if state is current else None,
            )
        return table
