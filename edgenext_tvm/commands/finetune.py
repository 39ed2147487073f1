"""The command `edgenext-tvm finetune`: from labelled images to a checkpoint that compile takes."""

from __future__ import annotations

import json
import os
import shlex
from typing import Any

import click

INTERRUPTED_STATUS = 130
DEFAULT_EPOCHS = 30
# resolved settings that are echoed where they were not given
ECHOED = (
    "batch_size", "optimizer", "learning_rate", "weight_decay", "label_smoothing", "min_crop", "ema_decay", "precision",
    "seed",
)  # fmt: skip


@click.command("finetune")
@click.argument("variant")
@click.option("--images", metavar="DIR|NPZ", required=True, help="Labelled images: DIR/CLASS/*.jpg, or an .npz.")
@click.option("--out", metavar="F", required=True, help="The checkpoint to write, .safetensors.")
@click.option("--validation", metavar="DIR|NPZ", help="Labelled images to judge by, never trained on.")
@click.option("--hold-out", type=float, default=0.1, show_default=True, help="Else this share of the images; 0: none.")
@click.option("--limit", type=int, help="Use at most this many images.")
@click.option("--checkpoint", metavar="F|random", help="Weights to start from; default: the bundled ones, else random.")
@click.option("--epochs", type=int, help=f"Passes over the images; default: {DEFAULT_EPOCHS}.")
@click.option("--input-size", type=int, help="Pixels a side, a multiple of 32; default: the checkpoint's, else 256.")
@click.option("--phases", metavar="SIDExEPOCHS,...", help="Instead of both: 64x18,128x4 is 18 epochs at 64, 4 at 128.")
@click.option("--batch-size", type=int, help="Images a step; default: 128, fewer for small sets.")
@click.option("--optimizer", metavar="O", help="muon or adamw.  [default: muon]")
@click.option("--learning-rate", type=float, help="At its peak.  [default: 0.002]")
@click.option("--weight-decay", type=float, help="[default: 0.05]")
@click.option("--label-smoothing", type=float, help="[default: 0.1]")
@click.option("--min-crop", type=float, help="Least share of an image's area that a random crop keeps.  [default: 0.4]")
@click.option("--ema-decay", type=float, help="Of the moving average of the weights, which is saved.  [default: 0.998]")
@click.option("--precision", metavar="P", help="auto, float32 or bfloat16.  [default: auto]")
@click.option("--seed", type=int, help="Of everything drawn by chance.  [default: 0]")
@click.option("--device", metavar="D", help="cpu or cuda; default: the GPU where there is one.")
@click.option("--workers", type=int, help="That decode images; default: one a core.")
@click.option("--threads", type=int, help="Of PyTorch; default: its own choice, one a core.")
@click.option("--compile", "compiled", is_flag=True, help="Train through torch.compile: faster, needs a C++ compiler.")
@click.option("--qat", metavar="EPOCHS", type=int, help="Then as many quantization-aware ones; alone, only these.")
@click.option("--qat-learning-rate", type=float, default=2e-6, show_default=True, help="Of --qat, at its peak.")
@click.option("--resume", is_flag=True, help="Go on with an interrupted run of the same options.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout, nothing else.")
def finetune_command(variant: str, images: str, out: str, as_json: bool, **options: Any) -> int:
    """Trains VARIANT (see `models`) on images of your own classes, and writes a checkpoint for compile.

    Equal options give equal weights on one machine. Ctrl-C saves where it stands; --resume goes on from there.
    """
    from rich.console import Console

    from edgenext_tvm.commands.finetune_display import FinetuneDisplay
    from edgenext_tvm.errors import UserError
    from edgenext_tvm.finetune.finetune import Watcher, finetune
    from edgenext_tvm.finetune.qat import QatSettings
    from edgenext_tvm.finetune.train import TrainingInterrupted
    from edgenext_tvm.tune.interrupt import Interruptible

    settings = _settings(variant, options)
    qat = None if options["qat"] is None else QatSettings(options["qat"], options["qat_learning_rate"])
    workers, threads = options["workers"], options["threads"]
    for name, value, least in (("workers", workers, 0), ("threads", threads, 1)):
        if value is not None and not least <= value <= 1024:
            raise UserError(f"{name} is {value}; allowed: {least} to 1024")
    errors = Console(stderr=True, soft_wrap=True, highlight=False)
    display = FinetuneDisplay(errors, quiet=as_json)
    shown = {"variant": variant, "images": images, "out": out}
    shown |= {name: options[name] for name in ("validation", "hold_out", "limit", "checkpoint", "device", "threads")}
    shown["phases"] = ",".join(f"{phase.input_size}x{phase.epochs}" for phase in settings.phases)
    if qat is not None:
        shown |= {"qat": f"{qat.epochs} epochs, learning rate {qat.learning_rate:g}"}
    display.settings(shown | {name: getattr(settings, name) for name in ECHOED})
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    with Interruptible() as interruptible, display:
        watcher = Watcher(
            display.say, display.decoding, display.progress, display.report, lambda: interruptible.requested
        )
        try:
            result = finetune(
                variant, images, out, settings, checkpoint=options["checkpoint"], validation=options["validation"],
                hold_out=options["hold_out"], limit=options["limit"], device=options["device"],
                workers=(os.cpu_count() or 1) if workers is None else workers, compiled=options["compiled"],
                qat=qat, resume=options["resume"], watcher=watcher,
            )  # fmt: skip
        except TrainingInterrupted as interrupted:
            display.interrupted(interrupted)
            if as_json:
                click.echo(json.dumps({"error": str(interrupted), "resumable": True}))
            return INTERRUPTED_STATUS
    following = shlex.join(
        ["edgenext-tvm", "compile", variant, "--checkpoint", str(result.checkpoint), "--calibration", images]
    )
    if as_json:
        click.echo(json.dumps({**result.to_dict(), "next": following}))
    else:
        display.result(result, following)
    return 0


def _settings(variant: str, options: dict[str, Any]) -> Any:
    from edgenext_tvm.errors import UserError
    from edgenext_tvm.finetune.settings import Phase, TrainingSettings, parse_phases
    from edgenext_tvm.finetune.start_model import default_input_size, find_checkpoint
    from edgenext_tvm.model.config import check_input_size

    find_checkpoint(variant, options["checkpoint"])  # a wrong name is told before a wrong size
    epochs, size, phases = options["epochs"], options["input_size"], options["phases"]
    if phases is not None and (epochs is not None or size is not None):
        raise UserError("--phases already says sizes and epochs; leave out --epochs and --input-size, or --phases")
    if epochs is not None and not 1 <= epochs <= 99999:
        raise UserError(f"epochs is {epochs}; allowed: 1 to 99999 (try {DEFAULT_EPOCHS})")
    if phases is not None:
        chosen = parse_phases(phases)
    else:
        size = default_input_size(variant, options["checkpoint"]) if size is None else size
        default = DEFAULT_EPOCHS if options["qat"] is None else 0
        chosen = (Phase(check_input_size(size), default if epochs is None else epochs),)
    given = {name: options[name] for name in ECHOED if options[name] is not None}
    return TrainingSettings(chosen, **given)
