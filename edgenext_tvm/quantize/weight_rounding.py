"""Rounds weights to their int8 grid so that each layer's output, not each weight, stays closest to float.

For one output channel with weights w and inputs x, the mean squared output error of a rounded q is
(w - q) H (w - q)^T with H = E[x^T x]. Columns are rounded one after the other, each time moving the error
into the columns that are still open by the optimal update (Hassibi, Stork 1993, "Optimal Brain Surgeon", eq. 5; in the
Cholesky form of Frantar et al. 2022, "GPTQ", arXiv 2210.17323, algorithm 1). No labels and no gradients: inputs of a
few images, then about a second of linear algebra for the XXS network.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgenext_tvm.quantize.observers import MIN_SCALE, WEIGHT_QMAX

Anchor: TypeAlias = "nn.Conv2d | nn.Linear"

# Share of the mean diagonal added to H: directions that calibration hardly saw must not absorb large errors.
DAMPING = 0.01
# Positions of one image that enter H, at most: neighbours say much the same.
MAX_ROWS_PER_BATCH = 4096


def anchors(model: nn.Module) -> dict[str, Anchor]:
    """The layers with weights, by module path, in network order."""
    return {name: cast(Anchor, m) for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}


def weight_scales(weight: Tensor) -> Tensor:
    """Scale of each output channel, float32 [C_OUT]: max|w| / 127, as the quantized program takes it."""
    return (weight.detach().flatten(1).abs().amax(1) / WEIGHT_QMAX).clamp(min=MIN_SCALE)


def nearest(weight: Tensor) -> Tensor:
    """Weights rounded one by one: int8 levels, int16 [C_OUT, K] with K the inputs of one output channel."""
    scaled = weight.detach().flatten(1) / weight_scales(weight)[:, None]
    return torch.round(scaled).clamp(-WEIGHT_QMAX, WEIGHT_QMAX).to(torch.int16)


@torch.no_grad()
def input_moments(model: nn.Module, batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """H of every layer with weights: the mean of x^T x over all positions, float64 [G, K, K].

    G is 1, or C_OUT for a depthwise convolution, whose channels have inputs of their own. batches: inputs of `model`.
    """
    sums: dict[str, Tensor] = {}
    rows: dict[str, int] = {}

    def watch(name: str, layer: Anchor) -> Any:
        def see(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = _columns(layer, inputs[0].detach())
            x = x[:, :: -(-x.shape[1] // MAX_ROWS_PER_BATCH)].double()
            sums[name] = sums.get(name, 0.0) + x.transpose(1, 2) @ x  # type: ignore[operator]
            rows[name] = rows.get(name, 0) + x.shape[1]

        return layer.register_forward_pre_hook(see)

    handles = [watch(name, layer) for name, layer in anchors(model).items()]
    try:
        for batch in batches:
            model(batch)
    finally:
        for handle in handles:
            handle.remove()
    return {name: total / rows[name] for name, total in sums.items()}


def _columns(layer: Anchor, x: Tensor) -> Tensor:
    # [G, positions, K]: what one output channel's weights are multiplied with at each position
    if isinstance(layer, nn.Linear):
        return x.reshape(1, -1, x.shape[-1])
    k = layer.weight[0].numel()
    patches = F.unfold(x, layer.kernel_size, padding=layer.padding, stride=layer.stride)  # type: ignore[arg-type]
    if layer.groups == 1:
        return patches.transpose(1, 2).reshape(1, -1, k)
    assert layer.groups == layer.in_channels == layer.out_channels
    return patches.reshape(len(x), layer.groups, k, -1).permute(1, 0, 3, 2).reshape(layer.groups, -1, k)


def round_weights(weight: Tensor, moments: Tensor, damping: float = DAMPING) -> Tensor:
    """Levels in [-127, 127] of `weight` [C_OUT, ...] for the input moments [G, K, K]: int16 [C_OUT, K].

    The largest weight of each channel keeps its level of +-127, so that the same scale is found again from the rounded
    weights. Never worse than `nearest` by the moments' own measure: a channel that would be gets the nearest levels.
    """
    flat, scale = weight.detach().double().flatten(1), weight_scales(weight).double()
    plain = nearest(weight)
    diagonal = moments.diagonal(dim1=1, dim2=2)
    mean = diagonal.mean(1, keepdim=True)
    # inputs that are always zero: any positive number keeps the inverse finite
    ridge = torch.where(mean > 0, damping * mean, torch.ones_like(mean))
    h = moments + torch.diag_embed(ridge.expand_as(diagonal))
    # the largest inputs first, while the most columns are left to correct their errors
    order = diagonal.sum(0).argsort(descending=True, stable=True)
    h = h[:, order][:, :, order]
    upper = torch.linalg.cholesky(torch.linalg.inv(h), upper=True)
    open_ = flat[:, order].clone()
    fixed = plain[:, order].abs() == WEIGHT_QMAX
    levels = torch.empty_like(open_)
    for i in range(open_.shape[1]):
        level = torch.round(open_[:, i] / scale).clamp(-WEIGHT_QMAX, WEIGHT_QMAX)
        level = torch.where(fixed[:, i], plain[:, order[i]].double(), level)
        levels[:, i] = level
        row = upper[:, i, i:].expand(len(flat), -1)
        error = (open_[:, i] - level * scale) / row[:, 0]
        open_[:, i:] -= error[:, None] * row
    found = torch.empty_like(levels)
    found[:, order] = levels
    return keep_better(weight, found.to(torch.int16), moments)


def keep_better(weight: Tensor, levels: Tensor, moments: Tensor) -> Tensor:
    """`levels`, but the nearest ones for each channel whose output error by `moments` they do not lower.

    With moments of images that did not choose the levels this refuses what only those images gain from.
    """
    flat, scale, plain = weight.detach().double().flatten(1), weight_scales(weight).double(), nearest(weight)
    better = _output_error(flat, levels, scale, moments) < _output_error(flat, plain, scale, moments)
    return torch.where(better[:, None], levels, plain)


def _output_error(flat: Tensor, levels: Tensor, scale: Tensor, moments: Tensor) -> Tensor:
    # mean squared error of each channel's output, [C_OUT]
    difference = (flat - levels.double() * scale[:, None])[:, None, :]
    return (difference @ moments.expand(len(flat), -1, -1) @ difference.transpose(1, 2)).flatten()


@torch.no_grad()
def apply_levels(layer: Anchor, levels: Tensor) -> None:
    """Sets `layer`'s weights, in place, to what `levels` (integer [C_OUT, K]) stand for on its own int8 grid."""
    scale = weight_scales(layer.weight)
    values = (levels.double() * scale.double()[:, None]).float()
    layer.weight = nn.Parameter(values.reshape(layer.weight.shape), requires_grad=False)
