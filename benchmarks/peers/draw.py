"""Draws a race's JSON as bars; runs in matplotlib's own environment: `draw.py RESULTS.json OUT.png`."""

from __future__ import annotations

import json
import statistics
import sys
from collections import Counter
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

CUT = 2.5
OURS, OTHERS = "#c8102e", "#8a9ba8"


def draw(results: dict, file: Path) -> None:
    """One panel per model and number of threads, fastest on top, ours in red."""
    models, threads = results["settings"]["models"], results["settings"]["threads"]
    raced = [row for row in results["rows"] if "median_ms" in row]
    bars = Counter((row["model"], row["threads"]) for row in raced)
    tallest = max(bars.values(), default=1)
    figure, axes = plt.subplots(
        len(models),
        len(threads),
        figsize=(6.2 * len(threads), (0.26 * tallest + 1.1) * len(models)),
        squeeze=False,
        layout="constrained",
    )
    for line, model in zip(axes, models, strict=True):
        for axis, count in zip(line, threads, strict=True):
            rows = sorted(
                (r for r in raced if r["model"] == model and r["threads"] == count), key=lambda r: -r["median_ms"]
            )
            labels = [f"{r['engine']} {r['precision']}" for r in rows]
            times = [r["median_ms"] for r in rows]
            colours = [OURS if r["engine"] == results["settings"]["ours"] else OTHERS for r in rows]
            # one engine far behind must not flatten all others: its bar is cut, its number is not
            longest = CUT * statistics.median(times) if times else 1.0
            shown = [min(time, longest) for time in times]
            labelled = [f"{time:.1f}" + (" (bar cut)" if time > longest else "") for time in times]
            axis.bar_label(axis.barh(labels, shown, color=colours), labelled, padding=3, fontsize=8)
            axis.set_title(f"{model}, {count} thread{'s' * (count > 1)}", fontsize=10)
            axis.set_xlabel("median of single inferences, ms (less is better)", fontsize=8)
            axis.tick_params(labelsize=8)
            axis.margins(x=0.12)
            axis.spines[["top", "right"]].set_visible(False)
    machine = results["machine"]
    figure.suptitle(
        f"256x256, batch 1, {machine['cpu']} ({machine['core']}), load {results['load']['before']} before, "
        f"{results['load']['after']} after" + ("; the machine was not quiet" if results.get("warning") else ""),
        fontsize=10,
    )
    figure.savefig(file, dpi=150)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
