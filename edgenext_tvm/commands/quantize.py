"""`edgenext-tvm quantize`: from a float model and images to a recipe, which `compile --recipe` takes."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich import box
from rich.console import Console
from rich.table import Table

from edgenext_tvm.errors import UserError

if TYPE_CHECKING:  # importing it takes seconds, which `--help` need not
    from edgenext_tvm.quantize.accuracy import Accuracy
    from edgenext_tvm.quantize.recipe import Recipe

METHODS = ("mse", "minmax", "percentile", "auto")

errors = Console(stderr=True, soft_wrap=True, highlight=False)
output = Console(soft_wrap=True, highlight=False)


@click.command("quantize")
@click.argument("model")
@click.option("--calibration", required=True, metavar="DIR|NPZ|synthetic[:N]", help="Images like those to classify.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The recipe file to write (JSON).")
@click.option("--calibration-images", type=int, default=256, show_default=True, help="Use at most so many.")
@click.option("--seed", type=int, default=0, show_default=True, help="Chooses which images.")
@click.option("--checkpoint", metavar="F", help="Weights: .safetensors, .pth, .pt, or random[:SEED].")
@click.option("--num-classes", type=int, help="Default: the checkpoint's.")
@click.option("--input-size", type=int, help="Pixels a side, a multiple of 32; default: the checkpoint's, else 256.")
@click.option("--method", type=click.Choice(METHODS), default="mse", show_default=True, help="How ranges are chosen.")
@click.option("--equalize/--no-equalize", default=True, show_default=True, help="Like ranges for attention channels.")
@click.option("--equalize-norms", is_flag=True, help="LayerNorm channels too where it pays; slower on the device.")
@click.option("--rounding-budget", type=float, metavar="MIN", help="For weights' rounding; default: 10; 0: nearest.")
@click.option("--bias-correction/--no-bias-correction", default=False, help="Keep the mean of each layer's output.")
@click.option("--evaluate", metavar="DIR|NPZ", help="Compare with float on these images, in PyTorch.")
@click.option("--evaluate-images", type=int, default=1000, show_default=True, help="Use at most so many.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout, nothing else.")
def quantize_command(model: str, out: Path, evaluate: str | None, as_json: bool, **options: Any) -> None:
    """Decides on images how MODEL, a variant (see `models`), becomes int8, and writes that as a recipe.

    With a recipe `compile --recipe` builds the same program again without any image.
    """
    from edgenext_tvm.quantize import ObserverSettings, open_images, quantize_model
    from edgenext_tvm.quantize.accuracy import compare
    from edgenext_tvm.source import load_float_model

    if out.is_dir() or not out.parent.is_dir():
        reason = "is a folder" if out.is_dir() else f"is in a folder that does not exist ({out.parent})"
        raise UserError(f"--out {out} {reason}; give a file in an existing folder, for example recipe.json")
    steps = _steps(options)
    errors.print("[bold]quantize[/bold]")
    for key, value in {"model": model, "out": out, **options, "evaluate": evaluate}.items():
        if value is not None:
            errors.print(f"  {key.replace('_', '-'):<18} {value}", markup=False)
    source = load_float_model(model, options["checkpoint"], options["num_classes"], options["input_size"])
    images = open_images(options["calibration"], options["calibration_images"], options["seed"])
    judged = open_images(evaluate, options["evaluate_images"]) if evaluate else None
    start = time.perf_counter()
    settings = ObserverSettings(method=options["method"])
    program = quantize_model(source.model, images, source.preprocessing, settings, quiet=as_json, steps=steps)
    seconds = time.perf_counter() - start
    program.recipe.save(out)
    accuracy = compare(program, source.model, judged, quiet=as_json) if judged else None
    if as_json:
        click.echo(json.dumps({"out": str(out), "seconds": round(seconds, 1)} | _summary(program.recipe, accuracy)))
        return
    output.print(_table(program.recipe, accuracy))
    output.print(f"{out}: written in {seconds:.0f} s; next: edgenext-tvm compile {model} --recipe {out}", markup=False)


def _steps(options: dict[str, Any]) -> Any:
    from edgenext_tvm.quantize.shape_weights import Steps

    given = {
        "equalize": options["equalize"],
        "equalize_norms": options["equalize_norms"],
        "rounding_budget_min": options["rounding_budget"],
        "bias_correction": options["bias_correction"],
    }
    return Steps(**{name: value for name, value in given.items() if value is not None})


def _summary(recipe: Recipe, accuracy: Accuracy | None) -> dict[str, Any]:
    import dataclasses

    return {
        "model": recipe.model,
        "input_size": recipe.input_size,
        "num_classes": recipe.num_classes,
        "weights_sha256": recipe.weights_sha256,
        "calibration": recipe.calibration.model_dump(mode="json"),
        "tensors": len(recipe.activations),
        "equalized_attentions": len(recipe.equalization.attention),
        "equalized_norms": len(recipe.equalization.norms),
        "rounded_layers": len(recipe.rounding),
        "bias_corrected_layers": len(recipe.bias_correction),
        "accuracy": dataclasses.asdict(accuracy) if accuracy else None,
    }


def _table(recipe: Recipe, accuracy: Accuracy | None) -> Table:
    table = Table(title="recipe", title_justify="left", show_header=False, box=box.SIMPLE)
    table.add_row("model", f"{recipe.model}, {recipe.num_classes} classes, {recipe.input_size} pixels")
    calibration = recipe.calibration
    table.add_row("calibration", f"{calibration.num_images} images of {calibration.source}, seed {calibration.seed}")
    table.add_row("tensors", f"{len(recipe.activations)}, ranges by {recipe.observer.method}")
    equalization = recipe.equalization
    table.add_row("equalized", f"{len(equalization.attention)} attentions, {len(equalization.norms)} norms")
    table.add_row("rounded", f"{len(recipe.rounding)} layers' weights for their outputs")
    table.add_row("biases corrected", f"{len(recipe.bias_correction)} layers")
    if accuracy:
        table.add_row("accuracy", str(accuracy))
    return table
