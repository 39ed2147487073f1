"""From images to a checkpoint: opens everything, trains, writes the averaged weights with what they need to be used."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from edgenext_tvm.errors import UserError
from edgenext_tvm.finetune.open_data import Data, open_data
from edgenext_tvm.finetune.settings import TrainingSettings
from edgenext_tvm.finetune.start_model import choose_device, start_model
from edgenext_tvm.finetune.train import EpochReport, Progress, Trainer, TrainingDiverged
from edgenext_tvm.finetune.training_images import TrainingImages
from edgenext_tvm.finetune.write_checkpoint import as_stored, check_out, write_checkpoint


@dataclass(frozen=True)
class FinetuneResult:
    """The checkpoint and what it reached. top1: on the validation images, None without any; of the weights as written,
    in float32. seconds: of this process, not of one that was interrupted before.
    """

    checkpoint: Path
    model: str
    classes: tuple[str, ...]
    input_size: int
    images: int
    validation_images: int
    epochs: int
    top1: float | None
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "checkpoint": str(self.checkpoint)}


@dataclass(frozen=True)
class Watcher:
    """What is told while it runs. stop: asked after every step and every decoded image; true ends the run, saved."""

    say: Callable[[str], None] = lambda _: None
    decoding: Callable[[str, int, int], None] = lambda name, done, total: None
    progress: Callable[[Progress], None] = lambda _: None
    report: Callable[[EpochReport], None] = lambda _: None
    stop: Callable[[], bool] = lambda: False


def state_path(out: str | Path) -> Path:
    """Where the state of an unfinished training of `out` lies."""
    out = Path(out)
    return out.with_name(out.name + ".training")


def finetune(
    variant: str,
    images: str | Path,
    out: str | Path,
    settings: TrainingSettings,
    *,
    checkpoint: str | Path | None = None,
    validation: str | Path | None = None,
    hold_out: float = 0.1,
    limit: int | None = None,
    device: str | None = None,
    workers: int = 0,
    compiled: bool = False,
    resume: bool = False,
    watcher: Watcher | None = None,
) -> FinetuneResult:
    """Trains `variant` on the labelled `images` (open_images' sources) and writes `out`, a .safetensors file.

    checkpoint: weights to start from, "random" for none, None for the bundled ones where there are any; a classifier of
        other classes starts anew.
    validation: images to judge by; None holds out the share `hold_out` of the others (0: no validation).
    workers: threads or processes that decode images beside the main one.
    resume: goes on with an interrupted run of the same options; its state lies beside `out` until the end.
    """
    begun = time.monotonic()
    watcher = watcher or Watcher()
    out, device = check_out(out), choose_device(device)
    state_file = state_path(out)
    _check_resume(state_file, out, resume)
    data = open_data(
        images,
        validation,
        hold_out,
        stored_size=max(phase.input_size for phase in settings.phases),
        validation_size=settings.input_size,
        limit=limit,
        seed=settings.seed,
        say=watcher.say,
    )
    settings = settings.for_images(len(data.training))
    model, origin = start_model(variant, checkpoint, data.classes, settings.input_size, settings.seed)
    watcher.say(
        f"{variant}, {len(data.classes)} classes, from {origin}; {len(data.training)} images in batches of "
        f"{settings.batch_size}, on {device}"
    )
    _load(data, workers, watcher)
    trainer = Trainer(model, data.training, settings, device, workers=workers, compiled=compiled)
    stored, top1 = _train(trainer, data.validation, state_file, resume, watcher)
    epochs = len(trainer.epoch_sizes)
    trained_on = f"{data.source}: {len(data.training)} images, {epochs} epochs"
    write_checkpoint(out, stored, variant, data.classes, settings.input_size, trained_on)
    state_file.unlink(missing_ok=True)
    return FinetuneResult(
        out,
        variant,
        data.classes,
        settings.input_size,
        len(data.training),
        0 if data.validation is None else len(data.validation),
        epochs,
        top1,
        time.monotonic() - begun,
    )


def _check_resume(state_file: Path, out: Path, resume: bool) -> None:
    if state_file.exists() and not resume:
        raise UserError(
            f"{state_file} is the state of an unfinished training of {out.name}; go on with --resume, or delete it"
        )
    if resume and not state_file.exists():
        raise UserError(f"there is no unfinished training to resume ({state_file} does not exist); leave out --resume")


def _load(data: Data, workers: int, watcher: Watcher) -> None:
    for name, part in (("training", data.training), ("validation", data.validation)):
        if part is not None and part.fits_in_memory:
            _decode(name, part, workers, watcher)


def _decode(name: str, part: TrainingImages, workers: int, watcher: Watcher) -> None:
    def decoded(count: int) -> None:
        watcher.decoding(name, count, len(part))
        if watcher.stop():
            raise KeyboardInterrupt

    part.load(max(1, workers), decoded)


def _train(
    trainer: Trainer, validation: TrainingImages | None, state_file: Path, resume: bool, watcher: Watcher
) -> tuple[dict[str, Tensor], float | None]:
    """(averaged weights as they are to be written, their top-1)."""
    if resume:
        trainer.resume(state_file)
        watcher.say(f"resuming at step {trainer.step} of {trainer.steps}")
    try:
        trainer.run(state_file, validation, watcher.progress, watcher.report, watcher.stop)
    except TrainingDiverged:
        # to go on from it would diverge again
        state_file.unlink(missing_ok=True)
        raise
    stored = as_stored(trainer.average)
    # what is judged is what is written
    trainer.average = {name: value.to(trainer.device, trainer.average[name].dtype) for name, value in stored.items()}
    return stored, None if validation is None else trainer.evaluate(validation, trainer.settings.input_size)
