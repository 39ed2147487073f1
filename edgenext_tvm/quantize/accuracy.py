"""Compares a quantized program with its float model on images, in PyTorch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from edgenext_tvm.quantize.calibrate import image_batches, progress_bar
from edgenext_tvm.quantize.convert import QuantizedProgram
from edgenext_tvm.quantize.images import ImageSet


@dataclass(frozen=True)
class Accuracy:
    """What quantization cost on `num_images` images.

    float_top1, quantized_top1: share of right answers, None where the images have no labels. agreement:
        share of images
    with the same first class. signal_to_noise_db: energy of the float logits over that of their difference.
    """

    num_images: int
    float_top1: float | None
    quantized_top1: float | None
    agreement: float
    signal_to_noise_db: float

    def __str__(self) -> str:
        top1 = ""
        if self.float_top1 is not None and self.quantized_top1 is not None:
            top1 = f"top-1 float {self.float_top1:.2%}, int8 {self.quantized_top1:.2%}; "
        return (
            f"{self.num_images} images: {top1}same first class {self.agreement:.2%}; "
            f"logits' signal to noise {self.signal_to_noise_db:.1f} dB"
        )


@torch.no_grad()
def compare(program: QuantizedProgram, model: torch.nn.Module, images: ImageSet, quiet: bool = False) -> Accuracy:
    """Runs every image through both; `model` is the float model in eval mode, the program has batch size
    1.
    """
    float_logits, int8_logits = [], []
    with progress_bar(quiet) as progress:
        task = progress.add_task("evaluate", total=len(images))
        for batch in image_batches(images, program.recipe.preprocessing):
            float_logits.append(model(batch)[0])
            int8_logits.append(program(batch)[0])
            progress.advance(task)
    wanted, found = torch.stack(float_logits), torch.stack(int8_logits)
    labels = [images.label(index) for index in range(len(images))]
    known = all(label is not None for label in labels)
    truth = torch.tensor(labels) if known else None
    noise = float(((found - wanted) ** 2).sum())
    signal = float((wanted**2).sum())
    return Accuracy(
        num_images=len(images),
        float_top1=_share(wanted.argmax(1) == truth) if truth is not None else None,
        quantized_top1=_share(found.argmax(1) == truth) if truth is not None else None,
        agreement=_share(wanted.argmax(1) == found.argmax(1)),
        signal_to_noise_db=10 * math.log10(signal / noise) if signal and noise else math.inf,
    )


def _share(hits: torch.Tensor) -> float:
    return float(hits.float().mean())
