"""From images to a checkpoint: opens everything, trains, writes the averaged weights with what they need to be used."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from edgenext_tvm.errors import UserError
from edgenext_tvm.finetune.fake_quantize_graph import FakeQuantizedGraph
from edgenext_tvm.finetune.open_data import Data, open_data
from edgenext_tvm.finetune.qat import QatSettings, check_variant, measure_ranges, qat_trainer, unfolded_weights
from edgenext_tvm.finetune.settings import TrainingSettings
from edgenext_tvm.finetune.start_model import choose_device, start_model
from edgenext_tvm.finetune.train import EpochReport, Progress, Trainer, TrainingDiverged
from edgenext_tvm.finetune.training_images import TrainingImages
from edgenext_tvm.finetune.write_checkpoint import as_stored, check_out, write_checkpoint
from edgenext_tvm.model.edgenext import EdgeNeXt


@dataclass(frozen=True)
class QatReport:
    """epochs: how many. kl_before, kl_after: Kullback-Leibler divergence of the simulated int8 answers from the float
    model's, nats an image, on the first training images seen whole.
    """

    epochs: int
    kl_before: float
    kl_after: float


@dataclass(frozen=True)
class FinetuneResult:
    """The checkpoint and what it reached. top1: on the validation images, None without any; of the weights as written,
    in float32. qat: what quantization-aware training changed, None without. seconds: of this process, not of one that
    was interrupted before.
    """

    checkpoint: Path
    model: str
    classes: tuple[str, ...]
    input_size: int
    images: int
    validation_images: int
    epochs: int
    top1: float | None
    qat: QatReport | None
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


def state_paths(out: str | Path) -> tuple[Path, Path]:
    """Where the state of an unfinished training of `out` lies: of the float part, of the quantization-aware part."""
    out = Path(out)
    return out.with_name(out.name + ".training"), out.with_name(out.name + ".qat-training")


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
    qat: QatSettings | None = None,
    resume: bool = False,
    watcher: Watcher | None = None,
) -> FinetuneResult:
    """Trains `variant` on the labelled `images` (open_images' sources) and writes `out`, a .safetensors file.

    checkpoint: weights to start from, "random" for none, None for the bundled ones where there are any; a classifier of
        other classes starts anew.
    validation: images to judge by; None holds out the share `hold_out` of the others (0: no validation).
    workers: threads or processes that decode images beside the main one. compiled: see Trainer.
    qat: quantization-aware training after the phases of `settings`, whose epochs may then be 0.
    resume: goes on with an interrupted run of the same options; its state lies beside `out` until the end.
    """
    begun = time.monotonic()
    watcher = watcher or Watcher()
    out, device = check_out(out), choose_device(device)
    if qat is not None:
        check_variant(variant)
    elif not settings.epochs:
        raise UserError("there are no epochs to train; give --epochs 30, or --qat 3 to refine trained weights for int8")
    _check_resume(out, resume)
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
    start = start_model(variant, checkpoint, data.classes, settings.input_size, settings.seed)
    if not settings.epochs and not start.complete:
        raise UserError(
            f"--qat alone refines trained weights, but these are {start.origin}; train them first, with --epochs"
        )
    watcher.say(
        f"{variant}, {len(data.classes)} classes, from {start.origin}; {len(data.training)} images in batches of "
        f"{settings.batch_size}, on {device}"
    )
    _load(data, workers, watcher)
    trainer = Trainer(start.model, data.training, settings, device, workers=workers, compiled=compiled)
    float_state, qat_state = state_paths(out)
    run_training(trainer, data.validation, float_state, resume, watcher)
    trainer.model.load_state_dict(trainer.average)
    weights: dict[str, Tensor] = trainer.average
    changed = None
    if qat is not None:
        weights, changed = _train_for_int8(start.model, trainer, qat, data.validation, qat_state, resume, watcher)
    stored = as_stored(weights)
    # what is judged is what is written
    trainer.average = {name: value.to(trainer.device, weights[name].dtype) for name, value in stored.items()}
    top1 = None if data.validation is None else trainer.evaluate(data.validation, settings.input_size)
    trained_on = f"{data.source}: {len(data.training)} images, {settings.epochs} epochs"
    trained_on += f", {qat.epochs} quantization-aware" if qat else ""
    write_checkpoint(out, stored, variant, data.classes, settings.input_size, trained_on)
    for state in (float_state, qat_state):
        state.unlink(missing_ok=True)
    return FinetuneResult(
        out,
        variant,
        data.classes,
        settings.input_size,
        len(data.training),
        0 if data.validation is None else len(data.validation),
        settings.epochs,
        top1,
        changed,
        time.monotonic() - begun,
    )


def _check_resume(out: Path, resume: bool) -> None:
    states = state_paths(out)
    found = [state for state in states if state.exists()]
    if found and not resume:
        raise UserError(
            f"{found[0]} is the state of an unfinished training of {out.name}; go on with --resume, or delete it"
        )
    if resume and not found:
        raise UserError(f"there is no unfinished training to resume ({states[0]} does not exist); leave out --resume")


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


def run_training(
    trainer: Trainer,
    validation: TrainingImages | None,
    state_file: Path,
    resume: bool,
    watcher: Watcher,
    begin_epoch: Callable[[Trainer], None] = lambda _: None,
) -> None:
    """Runs `trainer` to its end, from `state_file` if it is to resume and there is one."""
    if resume and state_file.exists():
        trainer.resume(state_file)
        watcher.say(f"resuming at step {trainer.step} of {trainer.steps}")
    try:
        trainer.run(state_file, validation, watcher.progress, watcher.report, watcher.stop, begin_epoch)
    except TrainingDiverged:
        # to go on from it would diverge again
        state_file.unlink(missing_ok=True)
        raise


def _train_for_int8(
    model: EdgeNeXt,
    before: Trainer,
    qat: QatSettings,
    validation: TrainingImages | None,
    state_file: Path,
    resume: bool,
    watcher: Watcher,
) -> tuple[dict[str, Tensor], QatReport]:
    trainer = qat_trainer(model, before.images, before.settings, qat, before.device.type, before.workers)
    watcher.say(f"quantization-aware training: {qat.epochs} epochs; top-1 is now of simulated int8")
    measure_ranges(trainer)
    kl_before = trainer.divergence_from_teacher()
    run_training(trainer, validation, state_file, resume, watcher, measure_ranges)
    trainer.model.load_state_dict(trainer.average)
    trainer.step = 0
    measure_ranges(trainer)
    report = QatReport(qat.epochs, kl_before, trainer.divergence_from_teacher())
    assert isinstance(trainer.model, FakeQuantizedGraph)
    return unfolded_weights(model, trainer.model.weights(trainer.average)), report
