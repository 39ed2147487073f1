"""The hard twin: same float outputs, ranges that break plain int8, and no loss with the rewrites."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgenext_tvm.quantize import open_images, quantize_model
from edgenext_tvm.quantize.accuracy import compare
from edgenext_tvm.quantize.hard_twin import make_hard_twin, quantize_plain
from edgenext_tvm.quantize.shape_weights import Steps
from edgenext_tvm.source import FloatModel, load_float_model

ALLOWED_LOSS = 0.005


@pytest.fixture(scope="module")
def bundled() -> FloatModel:
    return load_float_model("edgenext_xx_small", None, None, None)


@pytest.fixture(scope="module")
def model(bundled: FloatModel):
    return bundled.model


@torch.no_grad()
def test_float_outputs_are_the_same(model) -> None:
    x = torch.randn(2, 3, model.input_size, model.input_size, generator=torch.Generator().manual_seed(0))
    wanted = model(x)
    assert (make_hard_twin(model)(x) - wanted).norm() / wanted.norm() < 1e-5


def test_twin_has_the_stated_spread_and_is_the_same_every_time(model) -> None:
    twin, again, other = make_hard_twin(model), make_hard_twin(model), make_hard_twin(model, seed=1)
    changed = {name for name, value in twin.state_dict().items() if not torch.equal(value, model.state_dict()[name])}
    assert all(torch.equal(twin.state_dict()[name], again.state_dict()[name]) for name in changed)
    assert not torch.equal(twin.head.fc.weight, other.head.fc.weight)
    assert "stem.1.weight" not in changed
    xca = "stages.1.blocks.1.xca.qkv.bias"
    channels = model.state_dict()[xca].numel() // 3
    ratio = twin.state_dict()[xca] / model.state_dict()[xca]
    for part, spread in ((ratio[: 2 * channels], 16.0), (ratio[2 * channels :], 8.0)):
        assert float(part.min()) >= 1 / spread * 0.999
        assert float(part.max()) <= spread * 1.001
    assert len((ratio[2 * channels :] * 1e4).round().unique()) == 4  # one factor per head


def test_int8_of_the_twin_keeps_top1_and_plain_int8_is_far_worse(bundled, shared_data: Path) -> None:
    twin, preprocessing = make_hard_twin(bundled.model), bundled.preprocessing
    calibration = open_images(shared_data / "cifar10_train.npz", limit=16)
    images = open_images(shared_data / "cifar10_test.npz", limit=200)
    steps = Steps(rounding_budget_min=0, bias_correction=False)
    ours = compare(quantize_model(twin, calibration, preprocessing, quiet=True, steps=steps), twin, images, quiet=True)
    assert ours.float_top1 is not None and ours.quantized_top1 is not None
    assert ours.quantized_top1 >= ours.float_top1 - ALLOWED_LOSS
    few = images.select(24)
    plain = compare(quantize_plain(twin, calibration, preprocessing, quiet=True), twin, few, quiet=True)
    assert plain.signal_to_noise_db < ours.signal_to_noise_db - 8
