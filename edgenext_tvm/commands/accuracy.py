"""`edgenext-tvm accuracy`: how much accuracy each step from float to the board costs, and which tensors cost it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console

errors = Console(stderr=True, soft_wrap=True, highlight=False)
output = Console(soft_wrap=True, highlight=False)

DEFAULT_LAYER_IMAGES = 32


@click.command("accuracy")
@click.argument("target", metavar="BUILD|MODEL")
@click.option("--images", required=True, metavar="DIR|NPZ|synthetic[:N]", help="Not those of calibration.")
@click.option("--limit", type=int, help="Use at most so many images.")
@click.option("--runner", metavar="R", help="host, qemu or ssh://user@host[:port]; default: the board's own.")
@click.option("--layers", is_flag=True, help="Also the noise of every tensor in memory.")
@click.option("--scan", is_flag=True, help="Also quantize one tensor at a time.")
@click.option(
    "--layer-images", type=int, default=DEFAULT_LAYER_IMAGES, show_default=True, help="Of --layers and --scan."
)
@click.option("--top", type=int, default=15, show_default=True, help="Rows of --layers and --scan.")
@click.option("--checkpoint", metavar="F", help="Of a MODEL, as in compile.")
@click.option("--input-size", type=int, help="Of a MODEL, as in compile.")
@click.option("--recipe", metavar="F", help="Of a MODEL, as in compile.")
@click.option("--calibration", metavar="DIR|NPZ|synthetic[:N]", help="Of a MODEL, as in compile.")
@click.option("--picture", type=click.Path(path_type=Path), metavar="F.png", help="Draw it; also .svg or .pdf.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout, nothing else.")
def accuracy_command(
    target: str, images: str, limit: int | None, runner: str | None, layers: bool, scan: bool, layer_images: int,
    top: int, picture: Path | None, as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """Compares every stage between the float network and the board on the same images.

    BUILD is a folder that compile wrote; a MODEL (a variant) is compiled for this machine first, and thrown away.
    """
    from edgenext_tvm.accuracy.measure_layers import measure_layers
    from edgenext_tvm.accuracy.measure_ledger import measure_ledger
    from edgenext_tvm.accuracy.measure_sensitivity import measure_sensitivity, sensitivity_fields
    from edgenext_tvm.accuracy.open_model import measured_model
    from edgenext_tvm.errors import UserError
    from edgenext_tvm.quantize.images import open_images
    from edgenext_tvm.report import accuracy_picture, accuracy_tables

    if top < 1:
        raise UserError(f"--top is {top}; allowed: 1 or more (try 15)")
    if picture is not None:
        accuracy_picture.check_picture(picture)
    source = open_images(images, limit=limit)
    few = source.select(layer_images)
    errors.print("[bold]accuracy[/bold]")
    shown = {"target": target, "images": f"{len(source)} of {source.name}", "runner": runner, **options}
    for key, value in shown.items():
        if value is not None:
            errors.print(f"  {key.replace('_', '-'):<12} {value}", markup=False)

    def say(line: str) -> None:
        errors.print(line, markup=False)

    def compiled(stage: str, seconds: float, done: str) -> None:
        say(f"{stage:<9} {seconds:7.2f} s  {done}")

    with measured_model(target, progress=compiled, **options) as model:
        ledger = measure_ledger(model, source, runner, say)
        noise = measure_layers(model, few, runner, say) if layers else None
        entries = measure_sensitivity(model, few, say) if scan else None
    if picture is not None:
        accuracy_picture.draw_accuracy(picture, ledger, noise)
    if as_json:
        result: dict[str, Any] = {"target": target, "ledger": ledger.to_dict()}
        if noise:
            result["layers"] = noise.to_dict()
        if entries is not None:
            result["scan"] = sensitivity_fields(entries)
        click.echo(json.dumps(result | ({"picture": str(picture)} if picture else {})))
        return
    for table in accuracy_tables.ledger_tables(ledger):
        output.print(table)
    if noise:
        output.print(accuracy_tables.layers_table(noise, top))
        output.print(accuracy_tables.layers_sentence(noise), markup=False)
    if entries is not None:
        output.print(accuracy_tables.scan_table(entries, top))
    if picture is not None:
        output.print(f"{picture}: drawn", markup=False)
