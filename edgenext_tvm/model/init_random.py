"""Seeded weights without training under which every activation stays of order 1: for accuracy tests."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from edgenext_tvm.model.edgenext import EdgeNeXt
from edgenext_tvm.model.layers import Mlp

CALIBRATION_IMAGES = 8
CALIBRATION_SIZE = 64
# GELU and Hardswish bring a unit normal to a root mean square of about 0.6; together with this factor the
# residual stream does not grow beyond order 1 in the deepest stage (LayerScale is of order 1).
RESIDUAL_GAIN = 0.8


class _Draw:
    """Draws float32 tensors from one generator, so that equal seeds give equal models whatever else runs."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def uniform(self, like: Tensor, low: float, high: float) -> Tensor:
        return torch.rand(like.shape, generator=self.generator) * (high - low) + low

    def normal(self, like: Tensor, std: float) -> Tensor:
        return torch.randn(like.shape, generator=self.generator) * std


@torch.no_grad()
def init_random(model: EdgeNeXt, seed: int, layer_scale: float = 1.0) -> EdgeNeXt:
    """Fills `model` in place, returns it in eval mode; equal seeds give equal weights.

    Weights: normal with variance gain^2 / fan-in. LayerScale: uniform in [0.5, 1.5] * layer_scale. Norm
    weights: uniform in [0.5, 1.5]. Temperatures: uniform in [2, 8]. BatchNorm statistics: measured layer by
    layer on random images, then disturbed by up to 30 % in standard deviation and by about a tenth of one in
    mean.
    """
    draw = _Draw(seed)
    residual_outputs = {id(module.fc2) for module in model.modules() if isinstance(module, Mlp)}
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            fan_in = module.weight[0].numel()
            gain = RESIDUAL_GAIN if id(module) in residual_outputs else 1.0
            module.weight.copy_(draw.normal(module.weight, gain / math.sqrt(fan_in)))
            if module.bias is not None:
                module.bias.copy_(draw.normal(module.bias, 0.1))
        elif isinstance(module, (nn.LayerNorm, nn.BatchNorm1d, nn.BatchNorm2d)):
            module.weight.copy_(draw.uniform(module.weight, 0.5, 1.5))
            module.bias.copy_(draw.normal(module.bias, 0.1))
    for name, parameter in model.named_parameters():
        if name.rsplit(".", 1)[-1] in ("gamma", "gamma_xca"):
            parameter.copy_(draw.uniform(parameter, 0.5, 1.5) * layer_scale)
        elif name.endswith("temperature"):
            parameter.copy_(draw.uniform(parameter, 2.0, 8.0))
    model.eval()
    _set_batch_norm_statistics(model, draw)
    return model


def _set_batch_norm_statistics(model: EdgeNeXt, draw: _Draw) -> None:
    def measure(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0]
        channel_axis = 1 if isinstance(module, nn.BatchNorm2d) else x.ndim - 1
        flat = x.movedim(channel_axis, 0).flatten(1)
        mean, variance = flat.mean(1), flat.var(1, unbiased=False)
        module.running_mean.copy_(mean + draw.normal(mean, 0.1) * variance.sqrt())
        module.running_var.copy_(variance * draw.uniform(variance, 0.7, 1.3) ** 2)

    norms = [module for module in model.modules() if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d))]
    if not norms:
        return
    # Hooks run before each norm, so later layers are measured behind norms that are set already.
    handles = [norm.register_forward_pre_hook(measure) for norm in norms]
    shape = torch.empty(CALIBRATION_IMAGES, 3, CALIBRATION_SIZE, CALIBRATION_SIZE)
    model(draw.normal(shape, 1.0))
    for handle in handles:
        handle.remove()
