"""Makes a recipe: `python -m edgenext_tvm.quantize --images cifar10_train.npz --output recipe.json`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import get_args

import click

from edgenext_tvm.errors import UserError
from edgenext_tvm.model.checkpoint import bundled_checkpoint, load_model
from edgenext_tvm.quantize.accuracy import compare
from edgenext_tvm.quantize.images import open_images
from edgenext_tvm.quantize.make_recipe import DEFAULT_CALIBRATION_IMAGES, make_recipe
from edgenext_tvm.quantize.observers import Method, ObserverSettings

BUNDLED_MODEL = "edgenext_xx_small"


@click.command()
@click.option("--checkpoint", type=click.Path(path_type=Path), help="Float weights; default: bundled.")
@click.option("--images", required=True, help="Calibration images: a folder, an .npz file or synthetic[:N].")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="Recipe file to write (JSON).")
@click.option("--limit", default=DEFAULT_CALIBRATION_IMAGES, show_default=True, help="At most so many.")
@click.option("--seed", default=0, show_default=True, help="Chooses which images.")
@click.option("--method", type=click.Choice(get_args(Method)), default="mse", show_default=True)
@click.option("--input-size", type=int, help="Side in pixels; default: what the checkpoint says, else 256.")
@click.option("--evaluate", help="Images with labels to compare float and int8 on, afterwards.")
@click.option("--evaluate-limit", default=1000, show_default=True)
@click.option("--quiet", is_flag=True, help="No progress bar.")
def main(
    checkpoint: Path | None,
    images: str,
    output: Path,
    limit: int,
    seed: int,
    method: Method,
    input_size: int | None,
    evaluate: str | None,
    evaluate_limit: int,
    quiet: bool,
) -> None:
    """Calibrate a float checkpoint and write the recipe of its int8 program."""
    try:
        path = checkpoint or bundled_checkpoint(BUNDLED_MODEL)
        if path is None:
            raise UserError("no bundled checkpoint in this installation; give one with --checkpoint")
        settings = ObserverSettings(method=method)
        program = make_recipe(
            path,
            images,
            output,
            limit=limit,
            seed=seed,
            input_size=input_size,
            settings=settings,
            quiet=quiet,
        )
        recipe = program.recipe
        click.echo(f"{recipe.model} at {recipe.input_size}x{recipe.input_size}, {recipe.num_classes} classes")
        click.echo(f"calibrated on {recipe.calibration.num_images} images of {recipe.calibration.source}")
        click.echo(f"{len(recipe.activations)} int8 tensors -> {output}")
        if evaluate:
            model = load_model(path, input_size=input_size)
            click.echo(str(compare(program, model, open_images(evaluate, evaluate_limit), quiet)))
    except UserError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
