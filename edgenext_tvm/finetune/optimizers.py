"""Optimizers over one schedule: Muon for weight matrices, AdamW for all other parameters."""

from __future__ import annotations

import math

import torch
from torch import nn

from edgenext_tvm.finetune.settings import TrainingSettings

MUON_RATE_RATIO = 5.0
FINAL_RATE_SHARE = 0.01


def build_optimizers(model: nn.Module, settings: TrainingSettings) -> list[torch.optim.Optimizer]:
    """AdamW alone, or with Muon (Jordan et al. 2024) for the matrices between input and classifier.

    Only weights of two and more dimensions decay. Each group keeps its peak rate as "peak_lr".
    """
    matrices, weights, others = [], [], []
    for name, parameter in model.named_parameters():
        if settings.optimizer == "muon" and parameter.ndim == 2 and not name.startswith("head."):
            matrices.append(parameter)
        elif parameter.ndim >= 2 and not name.endswith("temperature"):
            weights.append(parameter)
        else:
            others.append(parameter)
    rate = settings.learning_rate
    groups = [
        {"params": weights, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))]
    if matrices:
        optimizers.append(
            torch.optim.Muon(
                matrices,
                lr=rate * MUON_RATE_RATIO,
                weight_decay=settings.weight_decay,
                adjust_lr_fn="original",
            )
        )
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


def set_rates(optimizers: list[torch.optim.Optimizer], step: int, total: int, warmup_share: float) -> float:
    """Sets every group's rate for `step` of `total`: linear warm-up, then a cosine to 1 %. Returns its share of the
    peak.
    """
    warmup = max(1, round(total * warmup_share))
    if step < warmup:
        share = (step + 1) / warmup
    else:
        progress = (step - warmup) / max(1, total - warmup)
        share = FINAL_RATE_SHARE + (1 - FINAL_RATE_SHARE) * 0.5 * (1 + math.cos(math.pi * progress))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * share
    return share
