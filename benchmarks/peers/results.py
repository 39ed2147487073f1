"""What a race found: a table for people, JSON for programs."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from benchmarks.peers.entrants import OURS, Entrant
from benchmarks.peers.interleave import Samples

QUIET_SPREAD = 0.15


@dataclass
class Row:
    """One entrant on one model. samples: None where it did not race, and then `reason` says why."""

    model: str
    entrant: Entrant
    cosine: float | None = None
    samples: Samples | None = None
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "model": self.model,
            "engine": self.entrant.engine.name,
            "precision": self.entrant.precision,
            "threads": self.entrant.threads,
            "cosine": self.cosine,
            "reason": self.reason,
        }
        if self.samples:
            found |= {
                "median_ms": self.samples.median_ms,
                "min_ms": self.samples.min_ms,
                "spread": self.samples.spread,
                "runs": self.samples.runs,
                "round_medians_ms": self.samples.round_medians_ms,
            }
        return found


def disturbance(rows: list[Row]) -> str | None:
    """What to say where the rounds differ too much to compare medians, None on a quiet machine."""
    spreads = [row.samples.spread for row in rows if row.samples]
    if not spreads or statistics.median(spreads) <= QUIET_SPREAD:
        return None
    return (
        f"the machine was not quiet: half of the entrants spread over {statistics.median(spreads):.0%} (quiet: under "
        f"{QUIET_SPREAD:.0%}). Long inferences are interrupted more often than short ones, so medians flatter the "
        "fast, and more threads suffer more; end other programs and race again"
    )


def fastest(rows: list[Row], ours: bool) -> Row | None:
    """The row of least median among ours, or among the others."""
    raced = [row for row in rows if row.samples and (row.entrant.engine.name == OURS) == ours]
    return min(raced, key=lambda row: row.samples.median_ms, default=None)  # type: ignore[union-attr]


def tables(rows: list[Row], models: list[str], threads: tuple[int, ...]) -> list[Table]:
    """One table per model: an entrant a row, a column pair per number of threads, fastest first."""
    return [_table(model, [row for row in rows if row.model == model], threads) for model in models]


def _table(model: str, rows: list[Row], threads: tuple[int, ...]) -> Table:
    table = Table(title=f"{model}, 256x256, batch 1", title_justify="left")
    table.add_column("engine", no_wrap=True)
    table.add_column("cosine", justify="right")
    for count in threads:
        unit = "thread" if count == 1 else "threads"
        table.add_column(f"{count} {unit}, ms", justify="right", no_wrap=True)
        table.add_column("min", justify="right", style="dim")
        table.add_column("spread", justify="right", style="dim")
    best = {count: fastest([row for row in rows if row.entrant.threads == count], ours=False) for count in threads}
    labels = {row.entrant.label: row for row in rows}

    def rank(label: str) -> float:
        times = [row.samples.median_ms for row in rows if row.entrant.label == label and row.samples]
        return times[0] if times else float("inf")

    for label in sorted(labels, key=rank):
        mine = {row.entrant.threads: row for row in rows if row.entrant.label == label}
        cosines = [row.cosine for row in mine.values() if row.cosine is not None]
        cells: list[Text | str] = [
            Text(label, style="bold" if label.startswith(OURS) else ""),
            f"{min(cosines):.4f}" if cosines else "",
        ]
        for count in threads:
            samples = mine[count].samples if count in mine else None
            if samples is None:
                cells += ["-", "", ""]
            else:
                style = "green" if mine[count] is best[count] else ""
                cells += [
                    Text(f"{samples.median_ms:.2f}", style=style),
                    f"{samples.min_ms:.2f}",
                    f"{samples.spread:.0%}",
                ]
        table.add_row(*cells)
    return table


def reasons(rows: list[Row]) -> list[str]:
    """Per entrant that did not race one line with its reason; equal reasons of several threads once."""
    found = {f"{row.model}, {row.entrant.label}: {row.reason}": None for row in rows if row.reason}
    return list(found)


def summary(rows: list[Row], models: list[str], threads: tuple[int, ...]) -> list[str]:
    """Per model and threads one sentence: how ours stands to the fastest other, whoever wins."""
    sentences = []
    for model in models:
        for count in threads:
            chosen = [row for row in rows if row.model == model and row.entrant.threads == count]
            mine, best = fastest(chosen, ours=True), fastest(chosen, ours=False)
            if not (mine and best and mine.samples and best.samples):
                continue
            ratio = best.samples.median_ms / mine.samples.median_ms
            verdict = f"{ratio:.2f} times as fast as" if ratio >= 1 else f"{1 / ratio:.2f} times as slow as"
            where = f"{model}, {count} thread{'s' * (count > 1)}"
            sentences.append(
                f"{where}: {mine.entrant.label} at {mine.samples.median_ms:.2f} ms is "
                f"{verdict} the fastest other, {best.entrant.label} at {best.samples.median_ms:.2f} ms"
            )
    return sentences
