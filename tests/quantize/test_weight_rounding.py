"""Weights rounded for the layer's output: on their grid, and far better than nearest where inputs correlate."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgenext_tvm.quantize.weight_rounding import (
    anchors,
    apply_levels,
    input_moments,
    keep_better,
    nearest,
    round_weights,
    weight_scales,
)


def correlated_inputs(rows: int, columns: int, seed: int = 0) -> Tensor:
    mixing = torch.randn(columns, columns, generator=torch.Generator().manual_seed(99))
    mixing *= torch.linspace(3.0, 0.1, columns)[:, None]
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) @ mixing


def output_error(layer: nn.Module, levels: Tensor, x: Tensor) -> float:
    rounded = nn.Linear(layer.in_features, layer.out_features)
    rounded.load_state_dict(layer.state_dict())
    apply_levels(rounded, levels)
    with torch.no_grad():
        return float((rounded(x) - layer(x)).square().mean())


def test_output_error_falls_far_below_that_of_nearest_rounding() -> None:
    torch.manual_seed(1)
    layer, x = nn.Linear(48, 96), correlated_inputs(4096, 48)
    moments = input_moments(layer, [x])[""]
    levels = round_weights(layer.weight, moments)
    fresh = correlated_inputs(2048, 48, seed=1)
    assert output_error(layer, levels, fresh) < 0.5 * output_error(layer, nearest(layer.weight), fresh)


def test_moments_are_the_mean_of_outer_products() -> None:
    layer, x = nn.Linear(5, 3), correlated_inputs(40, 5)
    moments = input_moments(layer, [x[:10].reshape(2, 5, 5), x[10:]])[""]
    torch.testing.assert_close(moments[0], (x.double().T @ x.double()) / 40)


@pytest.mark.parametrize(
    "layer", [nn.Conv2d(3, 8, 4, stride=4), nn.Conv2d(6, 10, 2, stride=2), nn.Conv2d(6, 6, 5, padding=2, groups=6)]
)
def test_moments_of_a_convolution_predict_its_output_error(layer: nn.Conv2d) -> None:
    torch.manual_seed(2)
    x = torch.randn(3, layer.in_channels, 16, 16)
    moments = input_moments(layer, [x])[""]
    assert moments.shape == (layer.groups, layer.weight[0].numel(), layer.weight[0].numel())
    change = torch.randn_like(layer.weight) * 0.01
    with torch.no_grad():
        wanted = F.conv2d(x, change, None, layer.stride, layer.padding, 1, layer.groups).square().mean((0, 2, 3))
    flat = change.double().flatten(1)[:, None, :]
    found = (flat @ moments.expand(len(flat), -1, -1) @ flat.transpose(1, 2)).flatten()
    torch.testing.assert_close(found.float(), wanted, rtol=1e-4, atol=1e-8)


def test_levels_stay_on_the_grid_and_keep_the_scale() -> None:
    torch.manual_seed(3)
    layer, x = nn.Linear(24, 16), correlated_inputs(512, 24)
    levels = round_weights(layer.weight, input_moments(layer, [x])[""])
    assert levels.dtype == torch.int16 and int(levels.abs().max()) == 127
    assert bool((levels.abs().amax(1) == 127).all())
    scale = weight_scales(layer.weight)
    apply_levels(layer, levels)
    torch.testing.assert_close(weight_scales(layer.weight), scale, rtol=1e-6, atol=0)
    assert torch.equal(nearest(layer.weight), levels), "the quantized program finds the same levels again"


def test_inputs_that_are_always_zero_give_nearest_levels() -> None:
    layer = nn.Linear(8, 4)
    assert torch.equal(round_weights(layer.weight, torch.zeros(1, 8, 8, dtype=torch.float64)), nearest(layer.weight))


def test_a_channel_of_zeros_stays_zero() -> None:
    layer, x = nn.Linear(8, 4), correlated_inputs(64, 8)
    with torch.no_grad():
        layer.weight[2] = 0.0
    levels = round_weights(layer.weight, input_moments(layer, [x])[""])
    assert not levels[2].any()


def test_equal_inputs_give_equal_levels() -> None:
    torch.manual_seed(4)
    layer, x = nn.Linear(24, 16), correlated_inputs(512, 24)
    first, second = (round_weights(layer.weight, input_moments(layer, [x])[""]) for _ in range(2))
    assert torch.equal(first, second)


def test_anchors_are_the_layers_with_weights_in_order() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.GELU(), nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 2)))
    assert list(anchors(model)) == ["0", "2.1"]


def test_channels_that_other_inputs_do_not_gain_from_keep_the_nearest_levels() -> None:
    torch.manual_seed(5)
    layer, x = nn.Linear(24, 64), correlated_inputs(512, 24)
    levels = round_weights(layer.weight, input_moments(layer, [x])[""])
    white = torch.eye(24, dtype=torch.float64)[None]  # by which nothing beats nearest
    assert torch.equal(keep_better(layer.weight, levels, white), nearest(layer.weight))
    assert torch.equal(keep_better(layer.weight, levels, input_moments(layer, [x])[""]), levels)
