"""Tables of tuning: each kernel's default against its best, and what a build took from a database."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from edgenext_tvm.codegen.manifest import TuningEntry
    from edgenext_tvm.tune.front import TuneResult
    from edgenext_tvm.tune.manifest import FloatCheck
    from edgenext_tvm.tune.session import Outcome, TaskState


def tuning_text(entry: TuningEntry) -> str:
    """What a build's tuning entry says, in one line."""
    if entry.refused:
        return f"UNTUNED: the tuning database {entry.refused}"
    if not entry.database:
        return "untuned"
    chosen = len(entry.tuned) + len(entry.confirmed)
    text = f"{chosen} of {chosen + len(entry.fell_back)} kernels with a choice tuned by {entry.measured_by}"
    if entry.confirmed:
        text += f" ({len(entry.confirmed)} keep the hand-picked point)"
    reasons = Counter(entry.fell_back.values()).most_common()
    return text + "".join(f"; {count} fell back: {reason}" for reason, count in reasons)


def float_row(check: FloatCheck | None, origin: str) -> list[tuple[str, str]]:
    """The line that compares int8 with float32, if that was ever measured."""
    if check is None:
        return []
    slower = "" if check.speedup >= 1 else " SLOWER THAN FLOAT32"
    return [("int8 against float32", f"{check.speedup:.2f}x{slower} ({origin}, {check.date}: {check.how})")]


def cost_text(cost: float | None, unit: str) -> str:
    """A cost of one call for people: us, or thousands of instructions (the stored number is 1e-9 of them)."""
    if cost is None:
        return "-"
    return f"{cost * 1e6:.1f} us" if unit == "s" else f"{cost * 1e6:.1f} k instr."


def _first_line(state: TaskState) -> str:
    return state.first_error.partition("\n")[0]


def verdict(state: TaskState) -> str:
    """What became of a task."""
    winner = state.winner
    if winner is None:
        reason = _first_line(state) or "no time was left, or it was interrupted"
        return f"not decided: {reason}"
    if not winner.is_default:
        return " ".join(f"{name}={value}" for name, value in winner.decisions.items())
    return "default: nothing beat it by more than the noise"


def tuned(outcome: Outcome) -> Table:
    """Each task, the largest share first; whole in 80 columns: what became of a kernel stands below its name."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    unit = "us" if outcome.unit == "s" else "1000 instr."
    # on a narrow terminal the text wraps, never the numbers
    table.add_column(f"kernel (in {unit})", overflow="fold", min_width=18)
    for heading in ("calls", "share", "untuned", "best", "gain", "spread", "points"):
        table.add_column(heading, justify="right", no_wrap=True)
    for state in outcome.states:
        winner = state.winner
        count = f"{state.errors} error{'s' * (state.errors > 1)}"
        # without a winner the verdict tells the first one
        errors = [count + (f", the first: {_first_line(state)}" if winner else "")] if state.errors else []
        costs = (winner.default_cost, winner.best_cost) if winner else (state.default_cost, state.best_cost)
        table.add_row(
            Text("\n  ".join([state.task.name, verdict(state), *errors])),
            str(state.task.calls),
            f"{state.share:.1%}",
            *("-" if cost is None else f"{cost * 1e6:.1f}" for cost in costs),
            f"{winner.default_cost / winner.best_cost:.2f}x" if winner else "-",
            f"{winner.spread:.1%}" if winner else "-",
            f"{len(state.search.cost)}/{state.task.size}",
        )
    return table


def tuned_summary(result: TuneResult) -> Table:
    """The whole, and where it was kept."""
    outcome = result.outcome
    assert outcome is not None
    winners = [state for state in outcome.decided if state.winner and not state.winner.is_default]
    kept = len(outcome.decided) - len(winners)
    rows = [
        ("database", str(result.folder)),
        ("measured", f"{outcome.trials} points in {outcome.seconds:.0f} s by {result.runner}, in {outcome.unit}"),
        ("noise", f"{outcome.noise:.1%} between equal code"),
        ("tuned", f"{len(winners)} of {len(outcome.states)} kernels; {kept} keep the default"),
        ("speed-up per kernel", f"{outcome.geometric_mean:.3f}x (geometric mean)"),
        (
            "one inference",
            f"{cost_text(outcome.default_total, outcome.unit)} untuned, {cost_text(outcome.tuned_total, outcome.unit)} "
            f"tuned: {_whole(outcome):.3f}x (sum over calls, one thread)",
        ),
        *float_row(result.check, "measured now"),
    ]
    if outcome.outdated:
        rows.append(("not used", f"{outcome.outdated} records are no points of today's spaces"))
    rows += [("note", note) for note in (*outcome.notes, result.note) if note]
    if outcome.interrupted:
        rows.append(("interrupted", "everything measured is kept; go on with --resume"))
    table = Table(show_header=False, box=box.SIMPLE)
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, Text(value))
    return table


def _whole(outcome: Outcome) -> float:
    return outcome.default_total / outcome.tuned_total if outcome.tuned_total else 1.0


def tuned_fields(result: TuneResult) -> dict[str, Any]:
    """The fields of `tune --json`. Costs in the unit named, of one call on one thread."""
    outcome = result.outcome
    assert outcome is not None
    return {
        "board": result.board,
        "runner": result.runner,
        "log_dir": str(result.folder),
        "unit": outcome.unit,
        "noise": outcome.noise,
        "trials": outcome.trials,
        "seconds": round(outcome.seconds, 3),
        "interrupted": outcome.interrupted,
        "outdated_records": outcome.outdated,
        "geometric_mean": outcome.geometric_mean,
        "untuned_total": outcome.default_total,
        "tuned_total": outcome.tuned_total,
        "float_check": result.check.model_dump(mode="json") if result.check else None,
        "note": result.note,
        "notes": outcome.notes,
        "tasks": [
            {
                "kernel": state.task.name,
                "layers": list(state.task.layers),
                "calls": state.task.calls,
                "share": state.share,
                "points": state.task.size,
                "measured": len(state.search.cost),
                "errors": state.errors,
                "first_error": state.first_error,
                "untuned": state.default_cost,
                "winner": state.winner.model_dump(mode="json") if state.winner else None,
            }
            for state in outcome.states
        ],
    }
