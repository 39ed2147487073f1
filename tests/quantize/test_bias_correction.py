"""Bias correction: each layer's mean output becomes the float model's, and what was added is told."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgenext_tvm.quantize import ObserverSettings, open_images, quantize_model, quantize_with_recipe
from edgenext_tvm.quantize.bias_correction import correct_biases, output_means
from edgenext_tvm.quantize.calibrate import calibrate
from edgenext_tvm.quantize.fake_quantize import fake_quantized
from edgenext_tvm.quantize.insert_qdq import insert_observers
from edgenext_tvm.quantize.shape_weights import Steps


class Shifted(nn.Module):
    """Clipped and rounded so coarsely that means move: weights of one sign, inputs of one sign."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.fc, self.last = nn.Conv2d(3, 8, 3), nn.Linear(8, 6), nn.Linear(6, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.conv(x)).permute(0, 2, 3, 1)
        return self.last(torch.relu(self.fc(y)).mean((1, 2)))


@pytest.fixture(scope="module")
def batches() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(1, 3, 10, 10, generator=generator) for _ in range(6)]


def calibrated(model: nn.Module, batches: list[Tensor]):
    prepared, observers = insert_observers(model, batches[0], ObserverSettings())
    calibrate(prepared, batches, len(batches), quiet=True)
    for observer in observers:
        scale, zero_point = observer.qparams()
        observer.freeze(4 * scale, zero_point)  # coarse steps
    return prepared


@torch.no_grad()
def mean_logits(run, batches: list[Tensor]) -> Tensor:
    return torch.cat([run(batch) for batch in batches]).mean(0)


def test_mean_logits_come_to_those_of_float(batches) -> None:
    model = Shifted().eval()
    model.last = nn.Linear(6, 4)
    wanted = mean_logits(model, batches)
    prepared = calibrated(model, batches)
    means = output_means(model, batches)
    with fake_quantized(prepared):
        before = (mean_logits(prepared, batches) - wanted).abs().max()
    corrections = correct_biases(prepared, means, batches)
    with fake_quantized(prepared):
        after = (mean_logits(prepared, batches) - wanted).abs().max()
    assert after < 0.01 * before
    assert list(corrections) == ["conv", "fc", "last"]
    assert [len(offsets) for offsets in corrections.values()] == [8, 6, 4]


def test_a_layer_without_bias_is_left_alone(batches) -> None:
    model = Shifted().eval()
    prepared = calibrated(model, batches)
    assert list(correct_biases(prepared, output_means(model, batches), batches)) == ["conv", "fc"]


class Twice(Shifted):
    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.fc(torch.relu(self.fc(self.conv(x).mean((2, 3))))[:, [0, 1, 2, 3, 4, 5, 0, 1]]))


def test_a_layer_that_runs_twice_is_left_alone(batches) -> None:
    model = Twice().eval()
    prepared = calibrated(model, batches)
    assert list(correct_biases(prepared, output_means(model, batches), batches)) == ["conv"]


def test_means_are_per_output_channel(batches) -> None:
    model = Shifted().eval()
    means = output_means(model, batches)
    with torch.no_grad():
        wanted = torch.cat([model.conv(batch) for batch in batches]).mean((0, 2, 3))
    torch.testing.assert_close(means["conv"].float(), wanted)


def test_recipe_holds_what_was_added(small_model, small_preprocessing, small_input) -> None:
    images = open_images("synthetic:6")
    program = quantize_model(small_model, images, small_preprocessing, quiet=True, steps=Steps(bias_correction=True))
    assert len(program.recipe.bias_correction) == 9
    again = quantize_with_recipe(small_model, program.recipe)
    assert torch.equal(again(small_input), program(small_input))
