"""Quantization-aware training: weights learn to give, as int8, the answers that they give in float.

The student is the folded model with fake quantization by the rules of compile; the teacher is the float model, whose
answers to the same views it learns (Hinton et al. 2015, temperature 1), so labels play no part. The result is written
back as ordinary float weights: compile folds, calibrates and rounds them like any others.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from edgenext_tvm.errors import UserError
from edgenext_tvm.finetune.augment import plain
from edgenext_tvm.finetune.fake_quantize_graph import FakeQuantizedGraph
from edgenext_tvm.finetune.settings import Phase, TrainingSettings
from edgenext_tvm.finetune.train import Trainer
from edgenext_tvm.finetune.training_images import TrainingImages
from edgenext_tvm.model.config import VARIANTS
from edgenext_tvm.model.edgenext import EdgeNeXt
from edgenext_tvm.model.fold import fold_for_quantization

RANGE_BATCHES = 2
LAYER_SCALES = ("gamma", "gamma_xca")


@dataclass(frozen=True)
class QatSettings:
    """epochs: passes over the images, at the checkpoint's input size. learning_rate: peak of AdamW; int8 answers are
    so close to float ones from the start that a rate fit for training only leads away from them.
    """

    epochs: int
    learning_rate: float = 2e-6

    def __post_init__(self) -> None:
        if not 1 <= self.epochs <= 99999:
            raise UserError(f"quantization-aware epochs is {self.epochs}; allowed: 1 to 99999 (try 3)")
        if not 1e-8 <= self.learning_rate <= 1.0:
            raise UserError(f"quantization-aware learning rate is {self.learning_rate}; allowed: 1e-08 to 1.0")


def check_variant(variant: str) -> None:
    """UserError where `variant` cannot be trained quantization-aware."""
    if VARIANTS[variant].norm == "batch_norm":
        able = [name for name, config in VARIANTS.items() if config.norm == "layer_norm"]
        raise UserError(
            f"quantization-aware training of {variant} is not possible: its BatchNorm could not be written back after "
            f"folding; leave out --qat, or take one of {', '.join(able)}"
        )


def qat_trainer(
    model: EdgeNeXt, images: TrainingImages, settings: TrainingSettings, qat: QatSettings, device: str, workers: int
) -> Trainer:
    """A trainer of `model`'s folded form; `settings`: of the float training, whose views and batches stay."""
    settings = replace(
        settings.for_images(len(images)),
        phases=(Phase(settings.input_size, qat.epochs),),
        optimizer="adamw",
        learning_rate=qat.learning_rate,
        weight_decay=0.0,
        # bfloat16 has fewer digits than an int8 grid has steps
        precision="float32",
    )
    assert settings.batch_size is not None, "for_images resolves it"
    student = FakeQuantizedGraph(fold_for_quantization(model), settings.batch_size, settings.input_size)
    teacher = copy.deepcopy(model).requires_grad_(False)
    return Trainer(student, images, settings, device, workers=workers, channels_last=False, teacher=teacher)


@torch.no_grad()
def measure_ranges(trainer: Trainer) -> None:
    """Chooses the ranges of the coming epoch as calibration would: from whole images, under the weights as they are."""
    student = trainer.model
    assert isinstance(student, FakeQuantizedGraph)
    epoch = trainer.step // trainer.batches
    batches = zip(range(RANGE_BATCHES), trainer.training_batches(epoch), strict=False)
    side = trainer.epoch_sizes[epoch]
    student.measure_ranges(
        trainer.normalised(plain(pixels.to(trainer.device), side)) for _, (pixels, _labels) in batches
    )


def unfolded_weights(model: EdgeNeXt, folded: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state_dict for `model` that folds to the weights `folded`: what was folded away does nothing in it."""
    state = {}
    for name, value in model.state_dict().items():
        leaf = name.rsplit(".", 1)[-1]
        of_norm = ".norm" in name or ".downsample.0." in name
        if name in folded:
            state[name] = folded[name].detach().cpu().clone()
        elif leaf in LAYER_SCALES or (of_norm and leaf == "weight"):
            state[name] = torch.ones_like(value)
        elif of_norm and leaf == "bias":
            state[name] = torch.zeros_like(value)
        else:  # the position encoding, a constant while it trains
            state[name] = value.detach().cpu().clone()
    return state
