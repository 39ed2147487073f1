"""The training loop: resumable at any saved step, with the same result as a run that was never interrupted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException
from torch.utils.data import DataLoader, Dataset, Subset

from edgenext_tvm.errors import UserError
from edgenext_tvm.finetune.augment import augment, plain
from edgenext_tvm.finetune.optimizers import build_optimizers, set_rates
from edgenext_tvm.finetune.settings import TrainingSettings
from edgenext_tvm.finetune.training_images import TrainingImages
from edgenext_tvm.finetune.training_state import digest_labels, digest_weights, read_state, save_state
from edgenext_tvm.quantize.preprocess import IMAGENET_MEAN, IMAGENET_STD

SAVE_EVERY_SECONDS = 300.0
MAX_GRADIENT_NORM = 3.0
COMPARED_BATCHES = 8


@dataclass(frozen=True)
class Progress:
    """Where training stands: `epoch` of `epochs` (from 1), `step` of `steps` in all; loss: mean of the last steps."""

    epoch: int
    epochs: int
    step: int
    steps: int
    input_size: int
    loss: float
    images_per_second: float


@dataclass(frozen=True)
class EpochReport:
    """What an epoch reached. loss: mean of the steps that this process ran. top1: of the averaged weights on the
    validation images, None without any.
    """

    epoch: int
    epochs: int
    input_size: int
    loss: float
    top1: float | None
    seconds: float


class TrainingInterrupted(Exception):
    """Training was asked to stop and did, at a step that `state_file` holds."""

    def __init__(self, state_file: Path, step: int, steps: int) -> None:
        super().__init__(f"interrupted at step {step} of {steps}; {state_file} holds the state")
        self.state_file = state_file
        self.step = step
        self.steps = steps


class TrainingDiverged(UserError):
    """The loss is infinite or no number: these options do not train this model."""


class Trainer:
    """Trains `model` in place. Its state after every step depends on the settings, the images and the start weights
    alone; `save` and `resume` carry it over to another process.

    device: "cpu" or "cuda". workers: processes that decode images which are not in memory. compiled: through
    torch.compile, which needs a C++ compiler on the CPU; the result then differs in rounding. teacher: learn its
    answers instead of the labels. Parameters that do not require a gradient stay as they are.
    """

    def __init__(
        self, model: nn.Module, images: TrainingImages, settings: TrainingSettings, device: str = "cpu", *,
        workers: int = 0, compiled: bool = False, channels_last: bool = True, teacher: nn.Module | None = None,
    ) -> None:  # fmt: skip
        self.settings = settings.for_images(len(images))
        self.images = images
        self.device = torch.device(device)
        self.workers = workers
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        self.model = model.to(self.device, memory_format=self._format)
        self.teacher = None if teacher is None else teacher.to(self.device, memory_format=self._format).eval()
        self._forward = torch.compile(self.model, dynamic=False) if compiled else self.model
        self.optimizers = build_optimizers(self.model, self.settings)
        self.average = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.step = 0
        assert self.settings.batch_size is not None, "for_images resolves it"
        self.batch_size = self.settings.batch_size
        self.batches = len(images) // self.batch_size
        self.epoch_sizes = [phase.input_size for phase in settings.phases for _ in range(phase.epochs)]
        mean, std = (torch.tensor(v, device=self.device).reshape(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
        self._mean, self._std = mean, std
        self._identity: dict[str, Any] = {
            "settings": asdict(self.settings),
            "number of images": len(images),
            "labels": digest_labels(images.labels),
            "start weights": digest_weights(model),
        }

    @property
    def steps(self) -> int:
        return self.batches * len(self.epoch_sizes)

    def run(
        self,
        state_file: Path,
        validation: TrainingImages | None = None,
        progress: Callable[[Progress], None] = lambda _: None,
        report: Callable[[EpochReport], None] = lambda _: None,
        stop: Callable[[], bool] = lambda: False,
        begin_epoch: Callable[[Trainer], None] = lambda _: None,
    ) -> None:
        """Trains from the current step to the end; saves to `state_file` after each epoch and every few minutes.

        stop: asked after every step; TrainingInterrupted, with the state saved, once it is true. begin_epoch: called
        before each epoch's first step.
        """
        saved = time.monotonic()
        epochs = len(self.epoch_sizes)
        while self.step < self.steps:
            epoch = self.step // self.batches
            side = self.epoch_sizes[epoch]
            begun, losses, first = time.monotonic(), [], self.step
            if self.step % self.batches == 0:
                begin_epoch(self)
            self.model.train()
            for pixels, labels in self.training_batches(epoch, self.step % self.batches):
                losses.append(self._train_step(pixels, labels, side))
                self.step += 1
                rate = (self.step - first) * self.batch_size / (time.monotonic() - begun)
                recent = float(np.mean(losses[-50:]))
                progress(Progress(epoch + 1, epochs, self.step, self.steps, side, recent, rate))
                if stop():
                    self.save(state_file)
                    raise TrainingInterrupted(state_file, self.step, self.steps)
                if time.monotonic() - saved > SAVE_EVERY_SECONDS and self.step % self.batches:
                    self.save(state_file)
                    saved = time.monotonic()
            # before validation, which may take as long as the epoch did
            self.save(state_file)
            saved = time.monotonic()
            top1 = None if validation is None else self.evaluate(validation, side)
            report(EpochReport(epoch + 1, epochs, side, float(np.mean(losses)), top1, time.monotonic() - begun))

    def training_batches(self, epoch: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches (uint8 [N,3,R,R], labels [N]) of `epoch` from the `first` on, in the order of training."""
        size = self.batch_size
        order = np.random.default_rng([self.settings.seed, epoch]).permutation(len(self.images))
        order = order[first * size : self.batches * size]
        if self.images.stored is not None:
            labels = torch.from_numpy(self.images.labels)
            for begin in range(0, len(order), size):
                chosen = torch.from_numpy(order[begin : begin + size])
                yield self.images.stored[chosen], labels[chosen]
            return
        yield from _loaded(Subset(self.images, order.tolist()), size, self.workers)

    def _train_step(self, pixels: Tensor, labels: Tensor, side: int) -> float:
        settings = self.settings
        set_rates(self.optimizers, self.step, self.steps, settings.warmup_share)
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + self.step)
        x = self.normalised(augment(pixels.to(self.device), side, settings.min_crop, generator))
        loss = self._loss(x, labels.to(self.device))
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), MAX_GRADIENT_NORM)
        for optimizer in self.optimizers:
            optimizer.step()
        self._update_average()
        # read last: a GPU would else stand idle until its next work is queued
        value = float(loss.detach())
        if not np.isfinite(value):
            raise TrainingDiverged(
                f"training diverged at step {self.step} (loss {value}); try a lower --learning-rate than "
                f"{settings.learning_rate:g}"
            )
        return value

    def _loss(self, x: Tensor, labels: Tensor) -> Tensor:
        with self._autocast():
            try:
                logits = self._forward(x).float()
            except TorchDynamoException as error:
                reason = next(iter(str(error).splitlines()), type(error).__name__)
                raise UserError(
                    f"torch.compile cannot compile the model here ({reason}); install a C++ compiler and Python's "
                    "headers, or leave out --compile"
                ) from error
        if self.teacher is None:
            return F.cross_entropy(logits, labels, label_smoothing=self.settings.label_smoothing)
        with torch.no_grad():
            wanted = self.teacher(x).log_softmax(1)
        return F.kl_div(logits.log_softmax(1), wanted, reduction="batchmean", log_target=True)

    @torch.no_grad()
    def _update_average(self) -> None:
        # early averages would hold on to the start weights for too long
        decay = min(self.settings.ema_decay, (1 + self.step) / (10 + self.step))
        averages, values = [], []
        for name, value in self.model.state_dict().items():
            if value.is_floating_point():
                averages.append(self.average[name])
                values.append(value)
            else:
                self.average[name].copy_(value)
        torch._foreach_lerp_(averages, values, 1 - decay)

    def normalised(self, views: Tensor) -> Tensor:
        """Network input of float32 [N,3,S,S] in [0, 1], in the model's memory format."""
        return ((views - self._mean) / self._std).contiguous(memory_format=self._format)

    def _autocast(self) -> AbstractContextManager[Any]:
        if uses_bfloat16(self.settings.precision, self.device.type):
            return torch.autocast(self.device.type, torch.bfloat16)
        return nullcontext()

    @torch.no_grad()
    def evaluate(self, images: TrainingImages, side: int) -> float:
        """Top-1 of the averaged weights in float32, images resized whole to `side`."""
        own = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(self.average)
        self.model.eval()
        right = 0
        try:
            for pixels, labels in _loaded(images, self.batch_size, 0 if images.stored is not None else self.workers):
                logits = self.model(self.normalised(plain(pixels.to(self.device), side)))
                right += int((logits.argmax(1).cpu() == labels).sum())
        finally:
            self.model.load_state_dict(own)
        return right / len(images)

    @torch.no_grad()
    def divergence_from_teacher(self) -> float:
        """Mean Kullback-Leibler divergence of the model's answers from the teacher's on whole images, the first
        batches of the first epoch; nats an image.
        """
        assert self.teacher is not None
        self.model.eval()
        values = []
        for (pixels, labels), _ in zip(self.training_batches(0), range(COMPARED_BATCHES), strict=False):
            x = self.normalised(plain(pixels.to(self.device), self.epoch_sizes[0]))
            values.append(float(self._loss(x, labels)))
        return float(np.mean(values))

    def save(self, path: Path) -> None:
        """Writes the whole state, atomically: a killed process leaves the previous file."""
        state = {
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        save_state(path, self._identity, state)

    def resume(self, path: Path) -> None:
        """Goes on from what `save` wrote. UserError where it is of other settings, images or start weights."""
        state = read_state(path, self._identity)
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.average = {name: value.to(self.device) for name, value in state["average"].items()}
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)


def _loaded(images: Dataset, batch_size: int, workers: int) -> Iterable[tuple[Tensor, Tensor]]:
    try:
        yield from DataLoader(images, batch_size, num_workers=workers)
    except UserError as error:
        # out of a worker process an error comes with that process's traceback as its message
        message = str(error).strip().splitlines()[-1]
        raise UserError(message.removeprefix(f"{UserError.__module__}.{UserError.__name__}: ")) from None


def uses_bfloat16(precision: str, device_type: str) -> bool:
    """True where the forward pass runs in bfloat16: as asked, or "auto" where the device multiplies it natively."""
    if precision == "auto":
        return device_type == "cuda" or torch.cpu._is_avx512_bf16_supported()
    return precision == "bfloat16"
