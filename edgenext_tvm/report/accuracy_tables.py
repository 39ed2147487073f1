"""Where accuracy goes, for people: the ledger, the noisiest tensors, the most harmful quantizers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

if TYPE_CHECKING:  # importing them takes seconds, which `--help` need not
    from edgenext_tvm.accuracy.ledger import Closeness
    from edgenext_tvm.accuracy.measure_layers import LayerNoise
    from edgenext_tvm.accuracy.measure_ledger import Ledger
    from edgenext_tvm.quantize.sensitivity import Sensitivity

# Where the terminal is narrow, headings wrap and numbers stay whole.
WIDEST_NUMBER = len("9.9e-99")


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    table.add_column(first, no_wrap=True)
    for heading in others:
        table.add_column(heading, justify="right", min_width=WIDEST_NUMBER)
    return table


def ledger_tables(ledger: Ledger) -> tuple[Table, Table]:
    """One row per stage: how far it is from float, and what the stage itself changed."""
    on = f", board: {ledger.runner}" if ledger.runner else ""
    title = f"{ledger.rows[0].images} images of {ledger.images}{on}, each stage against "
    measures = ("same class %", "cosine", "KL nats")
    to_float = _table(title + f"'{ledger.rows[0].stage}'", "stage", "top-1 %", "top-5 %", *measures)
    steps = _table(title + "the one above: what it costs by itself", "stage", "top-1 change", *measures)
    for row in ledger.rows:
        to_float.add_row(row.stage, _percent(row.top1), _percent(row.top5), *_closeness(row.to_float))
        if row.step is not None:
            change = "" if row.step_top1 is None else f"{100 * row.step_top1:+.2f}"
            steps.add_row(row.stage, change, *_closeness(row.step))
    return to_float, steps


def _closeness(found: Closeness) -> tuple[str, str, str]:
    return f"{100 * found.agreement:.2f}", f"{found.cosine:.5f}", f"{found.kl:.1e}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f}"


def decibel(value: float) -> str:
    """dB with one digit; `exact` where there is no noise."""
    return f"{value:.1f}" if math.isfinite(value) else ("exact" if value > 0 else "-inf")


def layers_table(noise: LayerNoise, top: int) -> Table:
    """The `top` noisiest tensors, the worst first."""
    table = _table(
        f"SQNR of every tensor in memory on {noise.runner}, {noise.images} images: the {top} worst of "
        f"{len(noise.tensors)}",
        "tensor",
        "dtype",
        "SQNR dB",
        "own dB",
        "clipped %",
    )
    for tensor in noise.worst_first[:top]:
        is_float = tensor.dtype == "float32"
        table.add_row(
            tensor.key,
            tensor.dtype,
            decibel(tensor.sqnr_db),
            "" if is_float else decibel(tensor.own_db),
            "" if is_float else f"{100 * tensor.clipped:.3f}",
        )
    return table


def layers_sentence(noise: LayerNoise) -> str:
    """The worst layers by name, and what was not seen."""
    worst = sorted(noise.layers.items(), key=lambda entry: entry[1])[:3]
    named = ", ".join(f"{layer} ({decibel(sqnr)} dB)" for layer, sqnr in worst)
    rounded = [tensor for tensor in noise.tensors if tensor.dtype != "float32"]
    own = min(rounded, key=lambda tensor: tensor.own_db)
    named += f"; worst rounded by itself: {own.key} ({decibel(own.own_db)} dB)"
    absent = f"; {len(noise.not_stored)} tensors live only inside fused kernels" if noise.not_stored else ""
    return f"worst layers: {named}{absent}"


def scan_table(entries: list[Sensitivity], top: int) -> Table:
    """The `top` most harmful tensors and weights."""
    table = _table(
        f"one quantized, all else float: the {top} most harmful of {len(entries)}",
        "tensor or weights",
        "logits' SQNR dB",
        "squared error",
        "same class %",
    )
    for entry in entries[:top]:
        more = f" (+{len(entry.group) - 1} of its scale)" if len(entry.group) > 1 else ""
        table.add_row(
            entry.group[0] + more,
            decibel(entry.sqnr_db),
            f"{entry.mean_squared_error:.2e}",
            f"{100 * entry.agreement:.2f}",
        )
    return table
