"""Multiply-adds are exact: they equal the formulas, PyTorch's own counter, and the published figures."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edgenext_tvm.model.config import VARIANTS
from edgenext_tvm.model.edgenext import build_model
from edgenext_tvm.model.fold import fold_for_quantization
from edgenext_tvm.model.madds import count_madds

# Million, at 256x256 and 1000 classes: README and model file of the official repository.
PUBLISHED_PARAMETERS = {
    "edgenext_xx_small": 1.33,
    "edgenext_x_small": 2.34,
    "edgenext_small": 5.59,
    "edgenext_base": 18.51,
    "edgenext_xx_small_bn_hs": 1.33,
    "edgenext_x_small_bn_hs": 2.34,
    "edgenext_small_bn_hs": 5.58,
}
PUBLISHED_MADDS = {
    "edgenext_xx_small": 260.58,
    "edgenext_x_small": 538.0,
    "edgenext_small": 1260.59,
    "edgenext_base": 3840.93,
    "edgenext_xx_small_bn_hs": 259.53,
    "edgenext_x_small_bn_hs": 535.84,
    "edgenext_small_bn_hs": 1257.28,
}
IMAGE = (1, 3, 256, 256)


@pytest.mark.parametrize("name", VARIANTS)
def test_parameters_are_the_published_ones(name: str) -> None:
    parameters = sum(p.numel() for p in build_model(name).parameters())
    assert round(parameters / 1e6, 2) == pytest.approx(PUBLISHED_PARAMETERS[name], abs=0.0051)


@pytest.mark.parametrize("name", VARIANTS)
def test_madds_are_within_3_percent_below_the_published_ones(name: str) -> None:
    total = count_madds(build_model(name), IMAGE).total / 1e6
    assert 0.97 * PUBLISHED_MADDS[name] < total < PUBLISHED_MADDS[name]


def _normalisation_operations(model: nn.Module) -> int:
    """What fvcore adds: 5 per element of a LayerNorm operator, 2 per element of a BatchNorm in inference."""
    operations = 0

    def add(module: nn.Module, inputs: object, out: torch.Tensor) -> None:
        nonlocal operations
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            operations += 2 * out.numel()
        elif type(module) is nn.LayerNorm:
            operations += 5 * out.numel()

    meta = model.eval().to("meta")
    for module in meta.modules():
        module.register_forward_hook(add)
    with torch.no_grad():
        meta(torch.empty(IMAGE, device="meta"))
    return operations


@pytest.mark.parametrize("name", VARIANTS)
def test_normalisation_explains_the_difference_to_the_last_digit(name: str) -> None:
    model = build_model(name)
    total = count_madds(model, IMAGE).total + _normalisation_operations(model)
    assert total / 1e6 == pytest.approx(PUBLISHED_MADDS[name], abs=0.0051)


@pytest.mark.parametrize("name", ["edgenext_small", "edgenext_xx_small_bn_hs"])
def test_pytorch_counts_the_same(name: str) -> None:
    model = build_model(name).eval().to("meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.empty(IMAGE, device="meta"))
    assert counter.get_total_flops() == 2 * count_madds(model, IMAGE).total


@pytest.mark.parametrize("name", VARIANTS)
def test_folding_removes_only_the_position_projection(name: str) -> None:
    model = build_model(name)
    report = count_madds(model, IMAGE)
    position = [n for key, n in report.by_module.items() if key.endswith("token_projection")]
    assert position == [32 * 32 * 64 * model.config.dims[1]]
    assert count_madds(fold_for_quantization(model), IMAGE).total == report.total - position[0]


def test_counts_are_kept_by_module() -> None:
    report = count_madds(build_model("edgenext_xx_small"), IMAGE)
    assert report.by_module["stem.0"] == 64 * 64 * 24 * 3 * 4 * 4
    assert report.by_module["stages.0.blocks.0.conv_dw"] == 64 * 64 * 24 * 3 * 3
    assert report.by_module["stages.0.blocks.0.mlp.fc1"] == 64 * 64 * 24 * 96
    assert report.by_module["stages.3.downsample.1"] == 8 * 8 * 88 * 168 * 4
    # Two products of d x d x T for each of the 4 heads, d = 168/4.
    assert report.by_module["stages.3.blocks.1.xca"] == 2 * 4 * 42 * 42 * 64
    assert report.by_module["head.fc"] == 168 * 1000
    assert report.under("") == report.total == sum(report.under(p) for p in ("stem", "stages", "head"))
    assert report.under("stages.1") > report.under("stages.1.blocks.1") > 0
    assert report.under("stages.1.block") == 0


@pytest.mark.parametrize(
    ("module", "shape", "expected"),
    [
        (nn.Conv2d(4, 6, 3, stride=2, padding=1), (2, 4, 8, 8), 2 * 16 * 6 * 4 * 9),
        (nn.Conv2d(4, 8, 3, groups=4), (1, 4, 8, 8), 36 * 8 * 9),
        (nn.ConvTranspose2d(4, 6, 2, stride=2), (1, 4, 8, 8), 64 * 4 * 6 * 4),
        (nn.Linear(5, 7), (3, 2, 5), 6 * 35),
        (nn.Linear(5, 7, bias=False), (3, 5), 3 * 35),
        (nn.GELU(), (3, 5), 0),
    ],
)
def test_single_layers(module: nn.Module, shape: tuple[int, ...], expected: int) -> None:
    assert count_madds(module, shape).total == expected


def test_the_model_itself_stays_as_it_was() -> None:
    model = build_model("edgenext_xx_small", input_size=64)
    count_madds(model, (1, 3, 64, 64))
    assert model.training and next(model.parameters()).device.type == "cpu"
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
