"""What a training run is asked to do, checked before anything is read."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from edgenext_tvm.errors import UserError
from edgenext_tvm.model.config import check_input_size

OPTIMIZERS = ("muon", "adamw")
PRECISIONS = ("auto", "float32", "bfloat16")
DEFAULT_BATCH_SIZE = 128
# fewer would leave an epoch without a gradient worth its name
MIN_DEFAULT_BATCHES = 8


@dataclass(frozen=True)
class Phase:
    """`epochs` passes over the images at `input_size` pixels a side; none where weights are only to be refined."""

    input_size: int
    epochs: int


@dataclass(frozen=True)
class TrainingSettings:
    """How to train; equal settings, images and start weights give equal weights on one machine.

    phases: run in order, under one learning-rate schedule; the last one's size is the checkpoint's input size.
    batch_size: None takes 128, or an eighth of the images where there are fewer than 1024.
    learning_rate: peak of the AdamW part; Muon's (weight matrices) is MUON_RATE_RATIO times it.
    min_crop: least share of the image's area that a random crop keeps.
    ema_decay: of the moving average of the weights, which is what is saved.
    """

    phases: tuple[Phase, ...]
    batch_size: int | None = None
    optimizer: str = "muon"
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    warmup_share: float = 0.05
    min_crop: float = 0.4
    ema_decay: float = 0.998
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.phases:
            raise UserError("no training phase is given; try --phases 64x24,128x4 or --epochs 30")
        for name, allowed in (("optimizer", OPTIMIZERS), ("precision", PRECISIONS)):
            if getattr(self, name) not in allowed:
                raise UserError(f"{name} {getattr(self, name)!r} is unknown; allowed: {', '.join(allowed)}")
        for name, low, high in (
            ("batch_size", 2, 65536),
            ("learning_rate", 1e-8, 1.0),
            ("weight_decay", 0.0, 1.0),
            ("label_smoothing", 0.0, 0.9),
            ("warmup_share", 0.0, 0.9),
            ("min_crop", 0.01, 1.0),
            ("ema_decay", 0.0, 0.99999),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise UserError(f"{name.replace('_', ' ')} is {value}; allowed: {low} to {high}")

    def for_images(self, count: int) -> TrainingSettings:
        """The same with a batch size that `count` training images fill. UserError where the one given is too large."""
        if self.batch_size is None:
            return replace(self, batch_size=max(2, min(DEFAULT_BATCH_SIZE, count // MIN_DEFAULT_BATCHES)))
        if count < self.batch_size:
            raise UserError(
                f"{count} training images do not fill one batch of {self.batch_size}; "
                f"try --batch-size {max(2, count // MIN_DEFAULT_BATCHES)}, or give more images"
            )
        return self

    @property
    def epochs(self) -> int:
        return sum(phase.epochs for phase in self.phases)

    @property
    def input_size(self) -> int:
        return self.phases[-1].input_size


def parse_phases(text: str) -> tuple[Phase, ...]:
    """Reads "64x24,128x4": 24 epochs at 64 pixels, then 4 at 128. UserError names the part that is wrong."""
    phases = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,5})x(\d{1,5})\s*", part, flags=re.ASCII)
        if match is None or int(match[2]) < 1:
            raise UserError(
                f"training phase {part.strip()!r} is not SIDExEPOCHS; give for example 64x24,128x4: 24 epochs at 64 "
                "pixels, then 4 at 128"
            )
        phases.append(Phase(check_input_size(int(match[1])), int(match[2])))
    return tuple(phases)
