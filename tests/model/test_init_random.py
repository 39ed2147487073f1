"""Random weights are repeatable and keep all variants' activations of order 1."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgenext_tvm.model.config import VARIANTS
from edgenext_tvm.model.edgenext import EdgeNeXt, build_model
from edgenext_tvm.model.init_random import init_random


def _model(name: str, seed: int = 3, layer_scale: float = 1.0) -> EdgeNeXt:
    return init_random(build_model(name, 10, 64), seed, layer_scale)


@pytest.mark.parametrize("name", VARIANTS)
def test_activations_stay_of_order_1(name: str) -> None:
    model = _model(name)
    deviations: dict[str, float] = {}
    for key, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear, nn.LayerNorm)) or ".blocks." in key:
            module.register_forward_hook(lambda m, x, y, key=key: deviations.update({key: float(y.std())}))
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = model(images)
    # Attention averages over channels, so what it hands on is smaller than what it takes.
    wide = {k: v for k, v in deviations.items() if not 0.1 < v < 5.0 and ".xca" not in k}
    assert not wide
    assert not {k: v for k, v in deviations.items() if not 0.02 < v < 5.0}
    assert float((logits[0] - logits[1]).abs().max()) > 0.05


@pytest.mark.parametrize("name", ["edgenext_xx_small", "edgenext_xx_small_bn_hs"])
def test_equal_seeds_give_equal_weights_whatever_else_draws(name: str) -> None:
    torch.manual_seed(11)
    first = _model(name).state_dict()
    torch.manual_seed(12)
    second, other = _model(name).state_dict(), _model(name, seed=4).state_dict()
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    assert not torch.equal(first["head.fc.weight"], other["head.fc.weight"])


@pytest.mark.parametrize("layer_scale", [1.0, 0.1])
def test_layer_scale_is_uniform_around_what_was_asked(layer_scale: float) -> None:
    model = _model("edgenext_xx_small", layer_scale=layer_scale)
    values = torch.cat([p.detach().flatten() for key, p in model.named_parameters() if "gamma" in key]) / layer_scale
    assert 0.5 <= float(values.min()) < 0.52 and 1.48 < float(values.max()) <= 1.5


def test_batch_norm_statistics_differ_from_their_defaults_and_the_model_is_in_eval_mode() -> None:
    model = _model("edgenext_xx_small_bn_hs")
    assert not model.training
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            assert float(module.running_mean.abs().max()) > 0
            assert float(module.running_var.min()) > 0
            assert not module._forward_pre_hooks
