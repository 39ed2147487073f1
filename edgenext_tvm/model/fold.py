"""Exact float rewrites that leave fewer and easier operators for quantization; only rounding differs.

After `fold_for_quantization` the model holds no BatchNorm, no LayerScale multiplication, no affine in any
LayerNorm whose result goes to a linear layer alone (all but the stem's, whose result is the residual stream),
and its position encoding is a constant. Module paths stay as they were. Arithmetic is in float64, rounded to
float32.
"""

from __future__ import annotations

import copy
from typing import TypeAlias, cast

import torch
from torch import Tensor, nn

from edgenext_tvm.model.edgenext import ConvEncoder, EdgeNeXt, SdtaEncoder
from edgenext_tvm.model.layers import BatchNormLast, ConstantPositionEncoding, LayerNorm2d

# Below this share of the largest scale, dividing a BatchNorm out of the stream would lose float32 digits.
MIN_DIVISIBLE_SCALE = 1e-2

BatchNorm = (nn.BatchNorm2d, BatchNormLast)
Anchor: TypeAlias = "nn.Conv2d | nn.Linear"


@torch.no_grad()
def fold_for_quantization(model: EdgeNeXt) -> EdgeNeXt:
    """Returns a new eval-mode model with the same outputs at `model.input_size`; leaves `model` alone.

    The result is for inference only: its state_dict no longer fits a checkpoint. Folding it again changes
    nothing.
    """
    folded = copy.deepcopy(model).eval()
    folded.fold_position_encoding()
    if isinstance(folded.stem[1], nn.BatchNorm2d):
        scale, shift = _affine_of(folded.stem[1])
        _scale_output(cast(Anchor, folded.stem[0]), scale, shift)
        folded.stem[1] = nn.Identity()
    for stage in folded.stages:
        downsample = stage.downsample
        if isinstance(downsample, nn.Sequential):
            downsample[0] = _fold_into_next(downsample[0], cast(Anchor, downsample[1]))
        for block in stage.blocks:  # type: ignore[union-attr]
            if isinstance(block, SdtaEncoder):
                _fold_sdta(block)
            else:
                _fold_conv_encoder(block)
    # Pooling is a mean, so a BatchNorm before it is a BatchNorm after it, just before the classifier.
    folded.head.norm = _fold_into_next(folded.head.norm, folded.head.fc)
    return folded


def _affine_of(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Gives (scale, shift), float64 [C], of what `norm` does after its own normalisation, if it has any."""
    weight, bias = norm.weight.double(), norm.bias.double()
    if isinstance(norm, BatchNorm):
        scale = weight / torch.sqrt(norm.running_var.double() + norm.eps)
        return scale, bias - norm.running_mean.double() * scale
    return weight, bias


def _set(anchor: Anchor, weight: Tensor, bias: Tensor) -> None:
    anchor.weight = nn.Parameter(weight.float(), requires_grad=False)
    anchor.bias = nn.Parameter(bias.float(), requires_grad=False)


def _weight_and_bias(anchor: Anchor) -> tuple[Tensor, Tensor]:
    weight = anchor.weight.double()
    bias = weight.new_zeros(weight.shape[0]) if anchor.bias is None else anchor.bias.double()
    return weight, bias


def _along(vector: Tensor, weight: Tensor, axis: int) -> Tensor:
    shape = [1] * weight.ndim
    shape[axis] = -1
    return vector.reshape(shape)


def _scale_input(anchor: Anchor, scale: Tensor, shift: Tensor) -> None:
    """Makes anchor(x) equal the old anchor(x*scale + shift); a convolution needs no padding and one group."""
    assert not isinstance(anchor, nn.Conv2d) or (anchor.padding == (0, 0) and anchor.groups == 1)
    weight, bias = _weight_and_bias(anchor)
    shifted = (weight * _along(shift, weight, 1)).flatten(1).sum(1)
    _set(anchor, weight * _along(scale, weight, 1), bias + shifted)


def _scale_output(anchor: Anchor, scale: Tensor, shift: Tensor | float = 0.0) -> None:
    """Makes anchor(x) equal the old anchor(x)*scale + shift."""
    weight, bias = _weight_and_bias(anchor)
    _set(anchor, weight * _along(scale, weight, 0), bias * scale + shift)


def _without_affine(norm: nn.LayerNorm) -> nn.LayerNorm:
    kind = LayerNorm2d if isinstance(norm, LayerNorm2d) else nn.LayerNorm
    return kind(norm.normalized_shape, eps=norm.eps, elementwise_affine=False).eval()


def _fold_into_next(norm: nn.Module, anchor: Anchor) -> nn.Module:
    """Moves what `norm` does per channel into `anchor`, its only consumer; returns what remains of `norm`."""
    if getattr(norm, "weight", None) is None:
        return norm
    scale, shift = _affine_of(norm)
    _scale_input(anchor, scale, shift)
    return nn.Identity() if isinstance(norm, BatchNorm) else _without_affine(cast(nn.LayerNorm, norm))


def _fold_conv_encoder(block: ConvEncoder) -> None:
    if isinstance(block.norm, BatchNormLast):
        scale, shift = _affine_of(block.norm)
        _scale_output(block.conv_dw, scale, shift)
        block.norm = nn.Identity()
    else:
        block.norm = _fold_into_next(block.norm, block.mlp.fc1)
    _fold_layer_scale(block)


def _fold_layer_scale(block: ConvEncoder | SdtaEncoder) -> None:
    if block.gamma is not None:
        _scale_output(block.mlp.fc2, block.gamma.double())
        block.gamma = None


def _fold_sdta(block: SdtaEncoder) -> None:
    if block.gamma_xca is not None:
        _scale_output(block.xca.proj, block.gamma_xca.double())
        block.gamma_xca = None
    block.norm = _fold_into_next(block.norm, block.mlp.fc1)
    if block.norm_on_stream:
        _fold_stream_norm(block)
    else:
        block.norm_xca = _fold_into_next(block.norm_xca, block.xca.qkv)
    _fold_layer_scale(block)


def _fold_stream_norm(block: SdtaEncoder) -> None:
    """Removes the BatchNorm between split convolutions and attention, whose result y is a residual stream.

    With y = a*c + b (+ position), c the concatenation: y + proj(xca(qkv(y))) feeds only fc1, so the stream
    may carry c + (b + position)/a instead. Then a moves into the inputs of qkv and fc1, and 1/a into the
    output of proj. The split convolutions cannot take `a` themselves: each also feeds the next, and the last
    group has none. Where some |a| is too small to divide by, a*c + b stays as one depthwise 1x1 convolution.
    """
    if isinstance(block.norm_xca, nn.Identity):
        return
    scale, shift = _affine_of(block.norm_xca)
    block.norm_xca = nn.Identity()
    if scale.abs().min() < MIN_DIVISIBLE_SCALE * scale.abs().max():
        channels = scale.numel()
        conv = nn.Conv2d(channels, channels, 1, groups=channels).eval()
        _set(conv, scale.reshape(-1, 1, 1, 1), shift)
        block.stream_scale = conv
        return
    zero = torch.zeros_like(shift)
    position = block.pos_embd
    if isinstance(position, ConstantPositionEncoding):
        constant = (position.encoding.double() + shift) / scale
        block.pos_embd = ConstantPositionEncoding(constant.float(), position.height, position.width)
        _scale_input(block.xca.qkv, scale, zero)
        _scale_output(block.xca.proj, 1 / scale)
    else:
        _scale_input(block.xca.qkv, scale, shift)
        _scale_output(block.xca.proj, 1 / scale, shift / scale)
    _scale_input(block.mlp.fc1, scale, zero)
