"""Which optimizer takes which parameter, and the learning rate over time."""

from __future__ import annotations

import pytest

from edgenext_tvm.finetune.optimizers import MUON_RATE_RATIO, build_optimizers, set_rates
from edgenext_tvm.finetune.settings import Phase, TrainingSettings
from edgenext_tvm.model.edgenext import build_model

MODEL = build_model("edgenext_xx_small", 3, 64, seed=0)


def settings(**values: object) -> TrainingSettings:
    return TrainingSettings((Phase(64, 1),), **values)


def test_every_parameter_has_one_optimizer() -> None:
    for name in ("muon", "adamw"):
        optimizers = build_optimizers(MODEL, settings(optimizer=name))
        taken = [id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
        assert sorted(taken) == sorted(id(p) for p in MODEL.parameters())
    assert len(optimizers) == 1


def test_muon_takes_the_matrices_between_input_and_classifier() -> None:
    _, muon = build_optimizers(MODEL, settings(learning_rate=1e-3))
    taken = {id(p) for p in muon.param_groups[0]["params"]}
    names = {name for name, p in MODEL.named_parameters() if id(p) in taken}
    assert "stages.1.blocks.1.xca.qkv.weight" in names and "head.fc.weight" not in names
    assert all(p.ndim == 2 for p in muon.param_groups[0]["params"])
    assert muon.param_groups[0]["lr"] == pytest.approx(1e-3 * MUON_RATE_RATIO)


def test_only_weights_decay() -> None:
    weights, others = build_optimizers(MODEL, settings(optimizer="adamw", weight_decay=0.1))[0].param_groups
    assert (weights["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    kept = {id(p) for p in others["params"]}
    names = {name for name, p in MODEL.named_parameters() if id(p) in kept}
    assert {"stages.1.blocks.1.xca.temperature", "stages.0.blocks.0.gamma", "head.fc.bias"} <= names
    assert not any(name.endswith("fc1.weight") for name in names)


def test_the_rate_warms_up_and_ends_near_nothing() -> None:
    optimizers = build_optimizers(MODEL, settings(learning_rate=1e-2))
    shares = [set_rates(optimizers, step, 100, 0.1) for step in range(100)]
    assert shares[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert shares[9] == shares[10] == 1.0
    assert shares[10:] == sorted(shares[10:], reverse=True)
    assert 0.01 <= shares[-1] < 0.02
    assert optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-2 * shares[-1])
