"""Quantization-aware training: what it may change, how its weights are written back, and whom it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgenext_tvm.errors import UserError
from edgenext_tvm.finetune.fake_quantize_graph import FakeQuantizedGraph
from edgenext_tvm.finetune.qat import QatSettings, check_variant, measure_ranges, qat_trainer, unfolded_weights
from edgenext_tvm.finetune.settings import Phase, TrainingSettings
from edgenext_tvm.finetune.training_images import TrainingImages
from edgenext_tvm.model.checkpoint import bundled_checkpoint, load_model
from edgenext_tvm.model.edgenext import EdgeNeXt, build_model
from edgenext_tvm.model.fold import fold_for_quantization
from edgenext_tvm.model.init_random import init_random

XXS = "edgenext_xx_small"
SETTINGS = TrainingSettings((Phase(64, 0),), batch_size=16)


@pytest.fixture(scope="module")
def model() -> EdgeNeXt:
    return load_model(bundled_checkpoint(XXS), input_size=64)


@pytest.mark.parametrize("name", [XXS, "edgenext_small"])
def test_folded_weights_are_written_back_as_an_ordinary_checkpoint(name: str) -> None:
    model = init_random(build_model(name, 3, 64, seed=0), 0)
    folded = fold_for_quantization(model)
    plain = build_model(name, 3, 64, seed=1)
    plain.load_state_dict(unfolded_weights(model, dict(folded.named_parameters())))
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = model(x)
        assert (plain.eval()(x) - wanted).norm() < 1e-4 * wanted.norm()
    again = dict(fold_for_quantization(plain).named_parameters())
    assert all(torch.equal(value, again[name]) for name, value in folded.named_parameters())


@pytest.mark.slow
def test_int8_answers_come_no_further_from_the_float_models(model: EdgeNeXt, square_images, tmp_path: Path) -> None:
    trainer = qat_trainer(model, square_images, SETTINGS, QatSettings(1), "cpu", 0)
    measure_ranges(trainer)
    before = trainer.divergence_from_teacher()
    trainer.run(tmp_path / "x.qat-training", begin_epoch=measure_ranges)
    trainer.step = 0
    measure_ranges(trainer)
    assert trainer.divergence_from_teacher() < 1.2 * before
    assert isinstance(trainer.model, FakeQuantizedGraph)
    trained = trainer.model.weights(trainer.average)
    start = dict(fold_for_quantization(model).named_parameters())
    moved = [name for name, value in start.items() if not torch.equal(value, trained[name])]
    assert len(moved) == len(start)


def test_views_and_batches_are_those_of_the_float_training(model: EdgeNeXt, square_images: TrainingImages) -> None:
    settings = TrainingSettings((Phase(96, 3), Phase(64, 1)), min_crop=0.7, seed=5)
    trainer = qat_trainer(model, square_images, settings, QatSettings(2, 1e-5), "cpu", 0)
    found = trainer.settings
    assert (found.min_crop, found.seed, found.batch_size, found.phases) == (0.7, 5, 8, (Phase(64, 2),))
    assert (found.optimizer, found.learning_rate, found.weight_decay) == ("adamw", 1e-5, 0.0)
    assert found.precision == "float32"


def test_variants_with_batch_norm() -> None:
    check_variant("edgenext_base")
    with pytest.raises(UserError, match=r"of edgenext_small_bn_hs is not possible: .*; leave out --qat, or take"):
        check_variant("edgenext_small_bn_hs")


def test_settings_out_of_range() -> None:
    with pytest.raises(UserError, match=r"quantization-aware epochs is 0; allowed: 1 to 99999 \(try 3\)"):
        QatSettings(0)
    with pytest.raises(UserError, match=r"quantization-aware learning rate is 2\.0; allowed: 1e-08 to 1\.0"):
        QatSettings(1, 2.0)
