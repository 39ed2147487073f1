"""What an accuracy budget bought, for people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.table import Table

from edgenext_tvm.verify.build_folder import BUDGET_FILE


def read_budget(build_dir: Path) -> dict[str, Any] | None:
    """What a budget bought for the build, None where it was compiled without one."""
    path = build_dir / BUDGET_FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def budget_table(fields: dict[str, Any]) -> Table:
    """One row for each tensor that became int16, in the order of the choice. fields: of `budget.choice_fields`."""
    base, unit = fields["base_cost"], fields["unit"]
    table = Table(title=f"int16 tensors for a budget of {goal_text(fields)}", title_justify="left")
    for name in ("tensor", "logits' SQNR", "same class", "extra cost"):
        table.add_column(name, justify="left" if name == "tensor" else "right")
    table.add_row("(all int8)", *_quality(fields["before"]), "")
    for step in fields["int16"]:
        more = f" and {len(step['tensors']) - 1} of one scale" if len(step["tensors"]) > 1 else ""
        extra = f"{100 * step['extra_cost'] / base:+.2f} % {'of time' if unit == 's' else 'of instructions'}"
        table.add_row(step["tensors"][0] + more, *_quality(step), extra)
    return table


def goal_text(fields: dict[str, Any]) -> str:
    goal = fields["goal"]
    return f"{goal['sqnr_db']:g} dB" if goal["sqnr_db"] is not None else f"{goal['points']:g} points"


def budget_sentence(fields: dict[str, Any]) -> str:
    """The account in a line."""
    count, before, after = len(fields["int16"]), fields["before"], fields["after"]
    reached = f"{before['sqnr_db']:.1f} dB to {after['sqnr_db']:.1f} dB, {100 * after['agreement']:.1f} % same class"
    if not count:
        verdict = "met by int8 alone" if fields["met"] else "NOT met: no tensor can be int16"
        return f"{goal_text(fields)} {verdict} ({before['sqnr_db']:.1f} dB)"
    extra = 100 * sum(step["extra_cost"] for step in fields["int16"]) / fields["base_cost"]
    kind = "time" if fields["unit"] == "s" else "instructions"
    verdict = "met" if fields["met"] else "NOT met with every tensor that helps"
    return f"{goal_text(fields)} {verdict}: {count} int16 tensors, {reached}, {extra:+.2f} % {kind}"


def _quality(values: dict[str, float]) -> tuple[str, str]:
    return f"{values['sqnr_db']:.1f} dB", f"{100 * values['agreement']:.1f} %"
