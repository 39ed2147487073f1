"""EdgeNeXt in PyTorch, float32, written from the paper (arXiv 2206.10589), with timm's parameter names.

Convolutions run on [B,C,H,W]; each block turns to channels last once for its pointwise part and back once.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from edgenext_tvm.errors import UserError
from edgenext_tvm.model.config import (
    INPUT_SIZE_MULTIPLE,
    MIN_INPUT_SIZE,
    EdgeNeXtConfig,
    check_input_size,
    check_num_classes,
    get_config,
)
from edgenext_tvm.model.layers import (
    BatchNormLast,
    ConstantPositionEncoding,
    CrossCovarianceAttention,
    FourierPositionEncoding,
    LayerNorm2d,
    Mlp,
)

LAYER_NORM_EPSILON = 1e-6
TRAINING_LAYER_SCALE = 1e-6


def _norm_2d(config: EdgeNeXtConfig, channels: int) -> nn.Module:
    if config.norm == "batch_norm":
        return nn.BatchNorm2d(channels)
    return LayerNorm2d(channels, eps=LAYER_NORM_EPSILON)


def _norm_last(config: EdgeNeXtConfig, channels: int) -> nn.Module:
    if config.norm == "batch_norm":
        return BatchNormLast(channels)
    return nn.LayerNorm(channels, eps=LAYER_NORM_EPSILON)


def _mlp(config: EdgeNeXtConfig, channels: int) -> Mlp:
    activation = nn.Hardswish() if config.activation == "hardswish" else nn.GELU()
    return Mlp(channels, config.expansion * channels, activation)


def _layer_scale(channels: int) -> nn.Parameter:
    return nn.Parameter(torch.full((channels,), TRAINING_LAYER_SCALE))


class ConvEncoder(nn.Module):
    """Adds to [B,C,H,W] a depthwise KxK convolution, norm and inverted bottleneck of itself (equation 1)."""

    def __init__(self, config: EdgeNeXtConfig, stage: int) -> None:
        super().__init__()
        channels, kernel = config.dims[stage], config.kernel_sizes[stage]
        # A BatchNorm right after the convolution makes its bias redundant.
        bias = config.norm == "layer_norm"
        self.conv_dw = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels, bias=bias)
        self.norm = _norm_last(config, channels)
        self.mlp = _mlp(config, channels)
        self.gamma: nn.Parameter | None = _layer_scale(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv_dw(x).permute(0, 2, 3, 1)
        y = self.mlp(self.norm(y))
        if self.gamma is not None:
            y = y * self.gamma
        return x + y.permute(0, 3, 1, 2)


class SdtaEncoder(nn.Module):
    """Adds to [B,C,H,W] its split depthwise transpose attention and inverted bottleneck (section 3.2).

    The channels are split in `scales` groups of ceil(C/scales), the last smaller where that does not divide.
    Group i passes a 3x3 depthwise convolution together with the result of group i-1, the last is passed on.
    With LayerNorm the attention's norm is inside the residual branch, with BatchNorm on the stream itself.
    """

    def __init__(self, config: EdgeNeXtConfig, stage: int) -> None:
        super().__init__()
        channels, scales = config.dims[stage], config.scales[stage]
        width = -(-channels // scales)
        self.norm_on_stream = config.norm == "batch_norm"
        self.widths = [width] * (scales - 1) + [channels - width * (scales - 1)]
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, groups=width) for _ in range(scales - 1))
        # Stays the identity but for a folded BatchNorm that cannot be divided out of the stream.
        self.stream_scale: nn.Module = nn.Identity()
        self.pos_embd: FourierPositionEncoding | ConstantPositionEncoding | None = None
        if config.position_encoding[stage]:
            self.pos_embd = FourierPositionEncoding(channels)
        self.norm_xca = _norm_last(config, channels)
        self.gamma_xca: nn.Parameter | None = _layer_scale(channels)
        self.xca = CrossCovarianceAttention(channels, config.heads[stage])
        self.norm = _norm_last(config, channels)
        self.mlp = _mlp(config, channels)
        self.gamma: nn.Parameter | None = _layer_scale(channels)

    def _multi_scale(self, x: Tensor) -> Tensor:
        groups = torch.split(x, self.widths, dim=1)
        y = self.convs[0](groups[0])
        outputs = [y]
        for conv, group in zip(list(self.convs)[1:], groups[1:-1], strict=True):
            y = conv(y + group)
            outputs.append(y)
        return torch.cat([*outputs, groups[-1]], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        y = self.stream_scale(self._multi_scale(x)).permute(0, 2, 3, 1).reshape(b, h * w, c)
        if self.norm_on_stream:
            y = self.norm_xca(y)
        if self.pos_embd is not None:
            y = y + self.pos_embd(h, w)
        attended = self.xca(y if self.norm_on_stream else self.norm_xca(y))
        if self.gamma_xca is not None:
            attended = attended * self.gamma_xca
        y = (y + attended).reshape(b, h, w, c)
        y = self.mlp(self.norm(y))
        if self.gamma is not None:
            y = y * self.gamma
        return x + y.permute(0, 3, 1, 2)


class Stage(nn.Module):
    """Halves [B,C,H,W] to [B,C2,H/2,W/2] (not in stage 0), then runs its blocks at that size."""

    def __init__(self, config: EdgeNeXtConfig, stage: int) -> None:
        super().__init__()
        self.downsample: nn.Module = nn.Identity()
        if stage > 0:
            c_in, c_out = config.dims[stage - 1], config.dims[stage]
            self.downsample = nn.Sequential(
                _norm_2d(config, c_in),
                nn.Conv2d(c_in, c_out, 2, stride=2, bias=config.norm == "layer_norm"),
            )
        num_conv = config.depths[stage] - config.sdta_blocks[stage]
        blocks: list[nn.Module] = [ConvEncoder(config, stage) for _ in range(num_conv)]
        blocks += [SdtaEncoder(config, stage) for _ in range(config.sdta_blocks[stage])]
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.downsample(x))


class EdgeNeXt(nn.Module):
    """Classifies images: float32 [B,3,H,W], normalised RGB, to float32 logits [B,num_classes].

    H and W are multiples of 32 and at least 64, else UserError.
    """

    def __init__(self, config: EdgeNeXtConfig, num_classes: int = 1000, input_size: int = 256) -> None:
        super().__init__()
        self.config = config
        self.num_classes = check_num_classes(num_classes)
        self.input_size = check_input_size(input_size)
        self.norm_before_pool = config.norm == "batch_norm"
        self.stem = nn.Sequential(
            nn.Conv2d(3, config.dims[0], 4, stride=4, bias=config.norm == "layer_norm"),
            _norm_2d(config, config.dims[0]),
        )
        self.stages = nn.Sequential(*(Stage(config, stage) for stage in range(4)))
        c_last = config.dims[-1]
        norm = nn.BatchNorm2d(c_last) if self.norm_before_pool else _norm_last(config, c_last)
        self.head = nn.Sequential(OrderedDict(norm=norm, fc=nn.Linear(c_last, num_classes)))

    def forward(self, x: Tensor) -> Tensor:
        _check_image_shape(x)
        y = self.stages(self.stem(x))
        if self.norm_before_pool:
            return self.head.fc(self.head.norm(y).mean((2, 3)))
        return self.head.fc(self.head.norm(y.mean((2, 3))))

    @torch.no_grad()
    def fold_position_encoding(self) -> EdgeNeXt:
        """Replaces, in place, the position encoding by its value at `input_size`: a constant to torch.export.

        From then on the model takes images of `input_size` only. Load weights before. Returns self.
        """
        for stage, module in enumerate(self.stages):
            side = self.input_size // (4 << stage)
            for block in module.blocks:  # type: ignore[union-attr]
                position = getattr(block, "pos_embd", None)
                if isinstance(position, FourierPositionEncoding):
                    block.pos_embd = ConstantPositionEncoding(position(side, side), side, side)
        return self


def _check_image_shape(x: Tensor) -> None:
    if x.ndim != 4 or x.shape[1] != 3:
        raise UserError(f"input of shape {list(x.shape)} is not a batch of images; expected [B,3,H,W]")
    for side in x.shape[2:]:
        if side % INPUT_SIZE_MULTIPLE or side < MIN_INPUT_SIZE:
            raise UserError(
                f"images of {x.shape[2]}x{x.shape[3]} pixels are not possible: both sides must be a multiple "
                f"of {INPUT_SIZE_MULTIPLE} and at least {MIN_INPUT_SIZE}; resize or pad the image"
            )


def _init_for_training(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def build_model(name: str, num_classes: int = 1000, input_size: int = 256, seed: int | None = None) -> EdgeNeXt:
    """Builds the variant `name` in training mode, initialised for training; equal seeds give equal weights.

    UserError where the name, the number of classes or the input size (pixels) is not possible.
    """
    config = get_config(name)
    check_num_classes(num_classes)
    check_input_size(input_size)
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        model = EdgeNeXt(config, num_classes, input_size)
        _init_for_training(model)
    return model
