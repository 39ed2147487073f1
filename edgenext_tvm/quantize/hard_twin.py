"""A twin of a model with the same float outputs and channels of wildly different ranges; and plain quantization.

Networks as trained are often kind to int8. The twin is what a less kind training could have left: every ratio of
channels that the network cannot see, but one scale per tensor can. With `quantize_plain` it shows what the rewrites
before quantization are for.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from edgenext_tvm.model.edgenext import EdgeNeXt, SdtaEncoder
from edgenext_tvm.quantize.convert import QuantizedProgram, quantize_model
from edgenext_tvm.quantize.equalize import scale_columns, scale_rows
from edgenext_tvm.quantize.images import ImageSet
from edgenext_tvm.quantize.observers import ObserverSettings
from edgenext_tvm.quantize.preprocess import Preprocessing
from edgenext_tvm.quantize.shape_weights import Steps

NORM_SPREAD = 8.0
QUERY_SPREAD = 16.0
VALUE_SPREAD = 8.0


@torch.no_grad()
def make_hard_twin(model: EdgeNeXt, seed: int = 0) -> EdgeNeXt:
    """A copy of a model with LayerNorms, in eval mode, whose float outputs are the same but for rounding.

    Factors are log-uniform. Each channel of a LayerNorm that one layer alone reads: [1/8, 8] on its weight and bias,
    divided out of that layer's columns. Rows of q and k: [1/16, 16], which the L2 norm cancels. v: one factor per
    head in [1/8, 8], divided out of the projection's columns.
    """
    twin = copy.deepcopy(model).eval()
    generator = torch.Generator().manual_seed(seed)

    def draw(count: int, spread: float) -> Tensor:
        exponent = torch.rand(count, generator=generator) * 2 - 1
        return torch.pow(torch.tensor(spread), exponent)

    def spread_norm(norm: nn.Module, reader: nn.Conv2d | nn.Linear) -> None:
        if isinstance(norm, nn.LayerNorm):
            factor = draw(norm.normalized_shape[0], NORM_SPREAD)
            norm.weight *= factor
            norm.bias *= factor
            scale_columns(reader, 1 / factor)

    for stage in twin.stages:
        if isinstance(stage.downsample, nn.Sequential):
            spread_norm(stage.downsample[0], stage.downsample[1])  # type: ignore[arg-type]
        for block in stage.blocks:  # type: ignore[union-attr]
            spread_norm(block.norm, block.mlp.fc1)
            if isinstance(block, SdtaEncoder):
                spread_norm(block.norm_xca, block.xca.qkv)
                channels, heads = block.xca.proj.in_features, block.xca.heads
                v = draw(heads, VALUE_SPREAD).repeat_interleave(channels // heads)
                scale_rows(block.xca.qkv, torch.cat([draw(2 * channels, QUERY_SPREAD), v]))
                scale_columns(block.xca.proj, 1 / v)
    spread_norm(twin.head.norm, twin.head.fc)
    return twin


class _AsItIs(nn.Module):
    # hides from quantization what the model is: nothing is folded or equalized
    def __init__(self, model: EdgeNeXt) -> None:
        super().__init__()
        self.network = copy.deepcopy(model).eval().fold_position_encoding()

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)


def quantize_plain(
    model: EdgeNeXt, images: ImageSet, preprocessing: Preprocessing, quiet: bool = False
) -> QuantizedProgram:
    """Quantizes as is: no folding of LayerNorm affine or LayerScale, no equalization, ranges from the least to the
    largest value, weights rounded to nearest. For comparison; the model has LayerNorms.
    """
    return quantize_model(
        _AsItIs(model), images, preprocessing, ObserverSettings(method="minmax"), model.config.name, quiet,
        steps=Steps(equalize=False, rounding_budget_min=0, bias_correction=False),
    )  # fmt: skip
