"""Exact float rewrites that give the channels of one int8 tensor like ranges; factors are powers of two.

An int8 tensor has one scale, so a channel ten times smaller than another keeps three bits fewer. Two places of
a folded EdgeNeXt let a channel be scaled without changing what the network computes:

- Attention. XCA divides each channel of q and k by its L2 norm over the tokens, which cancels any positive
  factor on the rows (and biases) of the qkv Linear that make it. v may take one factor per head, taken back by
  the columns of proj that read that head: the softmax mixes the channels of a head, so no finer. q, k and v are
  one Linear with one int8 output, so all three are brought to one range.
- LayerNorm to pointwise. A factor per channel goes into the LayerNorm's affine, its inverse into the columns of
  the only layer that reads it (SmoothQuant, Xiao et al. 2022, equation 4). It costs an affine LayerNorm kernel,
  and what the activation gains the weights lose, so it is an option and used only where it lowers the measured
  error of that layer.

Two places look alike and are not. Depthwise convolution to LayerNorm: the norm divides by a deviation over all
channels of a pixel, so scaling one channel moves all others; only one factor for the whole tensor would cancel,
and that is what the tensor's scale is. GELU and Hardswish are not homogeneous: f(a*x) is not a*f(x), so a factor
before them cannot be taken back after them (ReLU would allow it, and EdgeNeXt has none).

Multiplying by a power of two is exact in float32, so an equalized model's float logits are the same bits but for
the float32 order of the L2 norm's own sums.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, cast

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from edgenext_tvm.errors import UserError
from edgenext_tvm.model.edgenext import EdgeNeXt, SdtaEncoder
from edgenext_tvm.model.layers import CrossCovarianceAttention, LayerNorm2d

# 2^40 is far beyond any ratio of useful channels, and keeps products of factors and weights normal numbers.
MAX_EXPONENT = 40
# Affine LayerNorm costs time on the device: taken only for at least this much less error of the layer.
MIN_NORM_GAIN = 0.9
WEIGHT_LEVELS = 127
ACTIVATION_LEVELS = 255
# Rows of one image that enter the comparison of layers.
MAX_ROWS_PER_BATCH = 256

Exponents = tuple[Annotated[int, Field(ge=-MAX_EXPONENT, le=MAX_EXPONENT)], ...]


class AttentionExponents(BaseModel):
    """Factors 2^e of one attention: q and k per channel (C each), v per head."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    q: Exponents
    k: Exponents
    v: Exponents


class Equalization(BaseModel):
    """All factors of a model by module path; norms hold one exponent per channel of the LayerNorm."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    attention: dict[str, AttentionExponents] = {}
    norms: dict[str, Exponents] = {}


@torch.no_grad()
def choose_attention_exponents(model: EdgeNeXt, batches: Iterable[Tensor]) -> dict[str, AttentionExponents]:
    """Exponents for every attention of a folded model, from the channels' ranges on `batches`.

    The largest |value| of each channel decides: it is what the common int8 range must hold. Each q and k
    channel and each v head goes to the power of two nearest to the largest v head.
    """
    attentions = _attentions(model)
    peaks: dict[str, Tensor] = {}

    def observe(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
            peak = output.flatten(0, -2).abs().amax(0)
            peaks[name] = torch.maximum(peaks[name], peak) if name in peaks else peak

        return attentions[name].qkv.register_forward_hook(hook)

    handles = [observe(name) for name in attentions]
    try:
        for batch in batches:
            model(batch)
    finally:
        for handle in handles:
            handle.remove()
    return {name: _attention_exponents(peaks[name], attentions[name].heads) for name in attentions}


def _attention_exponents(peak: Tensor, heads: int) -> AttentionExponents:
    q, k, v = peak.reshape(3, -1)
    by_head = v.reshape(heads, -1).amax(1)
    target = float(by_head.max())
    return AttentionExponents(q=_exponents(q, target), k=_exponents(k, target), v=_exponents(by_head, target))


def _exponents(peak: Tensor, target: float) -> tuple[int, ...]:
    """Integers e with peak * 2^e nearest to target in the logarithm; 0 for a channel that was always zero."""
    if target == 0.0:
        return (0,) * len(peak)
    ideal = torch.log2(target / peak.double().clamp(min=1e-300)).round().clamp(-MAX_EXPONENT, MAX_EXPONENT)
    return tuple(int(e) for e in torch.where(peak > 0, ideal, 0.0))


@torch.no_grad()
def choose_norm_exponents(model: EdgeNeXt, batches: Iterable[Tensor]) -> dict[str, Exponents]:
    """Exponents for those LayerNorms of a folded model whose layer's measured error falls by a tenth or more.

    SmoothQuant's balance: channel c is divided by sqrt(max|x_c| / max|w_c|). The error is that of the layer's
    output with int8 input and weights, on rows sampled from `batches`.
    """
    readers = norm_readers(model)
    rows: dict[str, list[Tensor]] = {name: [] for name in readers}

    def observe(name: str) -> Any:
        def hook(norm: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
            flat = output.movedim(1, -1).flatten(0, -2) if isinstance(norm, LayerNorm2d) else output.flatten(0, -2)
            rows[name].append(flat[:: -(-len(flat) // MAX_ROWS_PER_BATCH)])

        return model.get_submodule(name).register_forward_hook(hook)

    handles = [observe(name) for name in readers]
    try:
        for batch in batches:
            model(batch)
    finally:
        for handle in handles:
            handle.remove()
    chosen: dict[str, Exponents] = {}
    for name, reader in readers.items():
        x, weight = torch.cat(rows[name]), _by_input(reader)
        exponents = _balanced(x.abs().amax(0), weight.abs().amax(0))
        factor = torch.exp2(torch.tensor(exponents, dtype=torch.float32))
        if any(exponents) and _layer_error(x * factor, weight / factor) < MIN_NORM_GAIN * _layer_error(x, weight):
            chosen[name] = exponents
    return chosen


def norm_readers(model: EdgeNeXt) -> dict[str, nn.Conv2d | nn.Linear]:
    """The one layer that reads each LayerNorm without affine, by the norm's module path; not the stem's norm, whose
    result is the residual stream.
    """
    found: dict[str, nn.Module] = {}
    for s, stage in enumerate(model.stages):
        if isinstance(stage.downsample, nn.Sequential):
            found[f"stages.{s}.downsample.0"] = stage.downsample[1]
        for b, block in enumerate(stage.blocks):  # type: ignore[arg-type]
            found[f"stages.{s}.blocks.{b}.norm"] = block.mlp.fc1
            if isinstance(block, SdtaEncoder):
                found[f"stages.{s}.blocks.{b}.norm_xca"] = block.xca.qkv
    found["head.norm"] = model.head.fc
    norms = {name: model.get_submodule(name) for name in found}
    return {
        name: cast(Any, reader)
        for name, reader in found.items()
        if isinstance(norms[name], nn.LayerNorm) and not norms[name].elementwise_affine
    }


def _by_input(reader: nn.Conv2d | nn.Linear) -> Tensor:
    # [C_OUT * positions of the window, C_IN]; one row reads one value of each channel
    weight = reader.weight
    return weight if weight.ndim == 2 else weight.movedim(1, -1).flatten(0, -2)


def _balanced(x_peak: Tensor, w_peak: Tensor) -> Exponents:
    ideal = 0.5 * (torch.log2(w_peak.clamp(min=1e-30)) - torch.log2(x_peak.clamp(min=1e-30)))
    ideal = torch.where((x_peak > 0) & (w_peak > 0), ideal, ideal.median())
    return tuple(int(e) for e in (ideal - ideal.median()).round().clamp(-MAX_EXPONENT, MAX_EXPONENT))


def _layer_error(x: Tensor, weight: Tensor) -> float:
    low, high = float(x.min().clamp(max=0)), float(x.max().clamp(min=0))
    step = max((high - low) / ACTIVATION_LEVELS, 1e-30)
    steps = weight.abs().amax(1, keepdim=True).clamp(min=1e-30) / WEIGHT_LEVELS
    found = (torch.round(x / step) * step) @ (torch.round(weight / steps) * steps).T
    return float((found - x @ weight.T).square().mean())


@torch.no_grad()
def apply_equalization(model: EdgeNeXt, equalization: Equalization) -> None:
    """Scales the weights of a folded model in place. Fails with `UserError` where the exponents do not fit it."""
    attentions = _attentions(model)
    for name, exponents in equalization.attention.items():
        if name not in attentions:
            raise UserError(
                f"recipe field 'equalization.attention': the model has no attention {name!r}; calibrate again"
            )
        attention = attentions[name]
        channels = attention.proj.in_features
        lengths = (len(exponents.q), len(exponents.k), len(exponents.v))
        if lengths != (channels, channels, attention.heads):
            raise UserError(
                f"recipe field 'equalization.attention.{name}' has {lengths[0]}, {lengths[1]} and {lengths[2]} "
                f"exponents for q, k and v, the model {channels}, {channels} and {attention.heads}; calibrate again"
            )
        v = _factors(exponents.v).repeat_interleave(channels // attention.heads)
        scale_rows(attention.qkv, torch.cat([_factors(exponents.q), _factors(exponents.k), v]))
        scale_columns(attention.proj, 1 / v)
    readers = norm_readers(model)
    for name, norm_exponents in equalization.norms.items():
        channels = model.get_submodule(name).normalized_shape[0] if name in readers else 0
        if len(norm_exponents) != channels or not channels:
            raise UserError(
                f"recipe field 'equalization.norms.{name}' has {len(norm_exponents)} exponents, and the model "
                f"{channels or 'no such LayerNorm without affine'}; calibrate again"
            )
        factor = _factors(norm_exponents)
        _set_affine(model, name, factor)
        scale_columns(readers[name], 1 / factor)


def _attentions(model: nn.Module) -> dict[str, CrossCovarianceAttention]:
    return {name: module for name, module in model.named_modules() if isinstance(module, CrossCovarianceAttention)}


def _factors(exponents: Exponents) -> Tensor:
    return torch.exp2(torch.tensor(exponents, dtype=torch.float32))


def scale_rows(layer: nn.Linear, factor: Tensor) -> None:
    """Multiplies output channel i of `layer`, weights and bias, by factor[i], in place."""
    layer.weight = nn.Parameter(layer.weight * factor[:, None], requires_grad=False)
    layer.bias = nn.Parameter(layer.bias * factor, requires_grad=False)


def scale_columns(layer: nn.Conv2d | nn.Linear, factor: Tensor) -> None:
    """Multiplies what `layer` (one group) reads of input channel i by factor[i], in place."""
    shape = (1, -1) + (1,) * (layer.weight.ndim - 2)
    layer.weight = nn.Parameter(layer.weight * factor.reshape(shape), requires_grad=False)


def _set_affine(model: EdgeNeXt, name: str, weight: Tensor) -> None:
    plain = cast(nn.LayerNorm, model.get_submodule(name))
    norm = type(plain)(plain.normalized_shape, eps=plain.eps).eval()
    norm.weight = nn.Parameter(weight, requires_grad=False)
    norm.bias = nn.Parameter(torch.zeros_like(weight), requires_grad=False)
    owner, _, attribute = name.rpartition(".")
    parent = model.get_submodule(owner)
    if isinstance(parent, nn.Sequential) and attribute.isdigit():
        parent[int(attribute)] = norm
    else:
        setattr(parent, attribute, norm)
