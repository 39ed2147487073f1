"""A picture of where accuracy goes: the ledger's steps, and below the noise of every tensor in network order."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgenext_tvm.errors import UserError

if TYPE_CHECKING:
    from edgenext_tvm.accuracy.measure_layers import LayerNoise
    from edgenext_tvm.accuracy.measure_ledger import Ledger

SUFFIXES = (".png", ".svg", ".pdf")
NAMED = 5
_SMALLEST_KL = 1e-9


def check_picture(path: Path) -> None:
    """Raises UserError where `draw_accuracy` could not write, before minutes of measuring."""
    if path.suffix not in SUFFIXES:
        raise UserError(f"picture {path} must end in {', '.join(SUFFIXES)}; try {path.with_suffix('.png')}")
    if not path.parent.is_dir():
        raise UserError(f"cannot write {path}: folder {path.parent} does not exist; create it first")
    _import_pyplot()


def draw_accuracy(path: Path, ledger: Ledger, noise: LayerNoise | None) -> Path:
    """Draws the ledger, and SQNR by layer where it was measured; returns the path."""
    figure_of = _import_pyplot()
    figure, axes = figure_of.subplots(
        2 if noise else 1, 1, figsize=(12, 8 if noise else 3.5), layout="constrained", squeeze=False
    )
    _draw_steps(axes[0][0], ledger)
    if noise:
        _draw_noise(axes[1][0], noise)
    partial = path.with_name(path.name + ".partial")
    try:
        figure.savefig(partial, format=path.suffix.removeprefix("."), dpi=120)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error.strerror}; give a writable file path") from error
    finally:
        figure_of.close(figure)
    return path


def _draw_steps(axes: Any, ledger: Ledger) -> None:
    steps = [(row.stage, row.step) for row in ledger.rows if row.step is not None]
    values = [max(step.kl, _SMALLEST_KL) for _, step in steps]
    bars = axes.barh(range(len(steps)), values, color="#4878a8")
    axes.set_yticks(range(len(steps)), [stage for stage, _ in steps])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("KL divergence from the stage above, nats, mean over images")
    axes.set_title(f"What each step changes: {ledger.rows[0].images} images of {ledger.images}, {ledger.board}")
    labels = [f" {step.kl:.1e}, {100 * step.agreement:.1f} % same class" for _, step in steps]
    axes.bar_label(bars, labels, fontsize=8)
    axes.margins(x=0.35)


def _draw_noise(axes: Any, noise: LayerNoise) -> None:
    tensors = [tensor for tensor in noise.tensors if math.isfinite(tensor.sqnr_db)]
    at = range(len(tensors))
    worst = sorted(at, key=lambda index: tensors[index].sqnr_db)[:NAMED]
    colours = ["#c03030" if index in worst else "#4878a8" for index in at]
    axes.bar(at, [tensor.sqnr_db for tensor in tensors], color=colours, label="SQNR, with what it inherits")
    own = [tensor.own_db if math.isfinite(tensor.own_db) else math.nan for tensor in tensors]
    axes.plot(at, own, ".", color="#404040", label="its own rounding and clipping alone")
    named = [f"{tensors[index].sqnr_db:5.1f} dB  {tensors[index].key}" for index in worst]
    box = {"facecolor": "white", "edgecolor": "#c03030", "alpha": 0.9}
    at_top = {"transform": axes.transAxes, "va": "top", "ha": "left", "family": "monospace", "fontsize": 8}
    axes.text(0.01, 0.97, "\n".join(["worst:", *named]), bbox=box, **at_top)
    axes.set_ylim(top=1.35 * max(tensor.sqnr_db for tensor in tensors))
    marks = range(0, len(tensors), max(1, len(tensors) // 30))
    axes.set_xticks(marks, [tensors[index].layer for index in marks], rotation=90, fontsize=6)
    axes.set_ylabel("SQNR, dB")
    axes.set_title(f"Every tensor in memory, in network order, {noise.images} images on {noise.runner}")
    axes.legend(loc="upper right", fontsize=8)


def _import_pyplot() -> Any:
    try:
        import matplotlib
    except ImportError:
        raise UserError(
            "a picture needs matplotlib, which is not installed; install it: pip install 'edgenext-tvm[pictures]'"
        ) from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot
