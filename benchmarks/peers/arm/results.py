"""Counted instructions as a table for people, and how ours stand to the best peer's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from benchmarks.peers.entrants import OURS, Entrant


@dataclass(frozen=True)
class Count:
    """One entrant on one model and core. instructions: None where nothing was counted, and then `reason` says why."""

    model: str
    core: str
    entrant: Entrant
    instructions: int | None = None
    cosine: float | None = None
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "core": self.core,
            "engine": self.entrant.engine.name,
            "precision": self.entrant.precision,
            "instructions": self.instructions,
            "cosine": self.cosine,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Standing:
    """Ours against the peer of fewest instructions, on one model and core."""

    model: str
    core: str
    ours: int
    best: int
    best_label: str

    @property
    def ratio(self) -> float:
        """Ours over the best peer's: less is better."""
        return self.ours / self.best

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "ratio": self.ratio}


def standings(counts: list[Count]) -> list[Standing]:
    """One per model and core where ours and at least one peer were counted, in order of appearance."""
    found = []
    for model, core in dict.fromkeys((count.model, count.core) for count in counts):
        here = [c for c in counts if (c.model, c.core) == (model, core) and c.instructions is not None]
        ours = [c for c in here if c.entrant.engine.name == OURS]
        peers = [c for c in here if c.entrant.engine.name != OURS]
        if ours and peers:
            mine = min(ours, key=_instructions)
            best = min(peers, key=_instructions)
            found.append(Standing(model, core, _instructions(mine), _instructions(best), best.entrant.label))
    return found


def _instructions(count: Count) -> int:
    assert count.instructions is not None
    return count.instructions


def tables(counts: list[Count]) -> list[Table]:
    """One table per model: an entrant a row, a column per core, fewest first; the best peer of a core in green."""
    return [_table(model, [c for c in counts if c.model == model]) for model in dict.fromkeys(c.model for c in counts)]


def _table(model: str, counts: list[Count]) -> Table:
    cores = list(dict.fromkeys(count.core for count in counts))
    table = Table(title=f"{model}, 256x256, batch 1, M instructions an inference", title_justify="left")
    table.add_column("engine", no_wrap=True)
    table.add_column("cosine", justify="right")
    for core in cores:
        table.add_column(core, justify="right", no_wrap=True)
    best = {standing.core: standing.best_label for standing in standings(counts)}
    by_label: dict[str, dict[str, Count]] = {}
    for count in counts:
        by_label.setdefault(count.entrant.label, {})[count.core] = count
    for label, mine in sorted(by_label.items(), key=lambda item: _rank(item[1].get(cores[0]))):
        cosines = [count.cosine for count in mine.values() if count.cosine is not None]
        cells: list[Text | str] = [
            Text(label, style="bold" if label.startswith(OURS) else ""),
            f"{min(cosines):.4f}" if cosines else "",
        ]
        for core in cores:
            value = mine[core].instructions if core in mine else None
            style = "green" if best.get(core) == label else ""
            cells.append("-" if value is None else Text(f"{value / 1e6:.1f}", style=style))
        table.add_row(*cells)
    return table


def _rank(count: Count | None) -> float:
    return float("inf") if count is None or count.instructions is None else count.instructions


def sentences(counts: list[Count]) -> list[str]:
    """Per model and core how ours stand to the best peer, whoever needs fewer."""
    return [
        f"{s.model}, {s.core}: {OURS} executes {s.ours / 1e6:.1f} M instructions, {s.ratio:.2f} of the best other's, "
        f"{s.best_label} with {s.best / 1e6:.1f} M"
        for s in standings(counts)
    ]


def reasons(counts: list[Count]) -> list[str]:
    """Per entrant that was not counted one line with its reason."""
    return [f"{c.model}, {c.core}, {c.entrant.label}: {c.reason}" for c in counts if c.reason]
