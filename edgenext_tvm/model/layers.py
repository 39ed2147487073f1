"""The layers of EdgeNeXt that are not plain PyTorch modules (arXiv 2206.10589, section 3).

Letters: B batch, C channels, H W rows and columns, T = H*W tokens, d = C / heads.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgenext_tvm.errors import UserError


class LayerNorm2d(nn.LayerNorm):
    """Normalises [B,C,H,W] over C for each pixel, by way of channels last."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class BatchNormLast(nn.BatchNorm1d):
    """Normalises the last axis of [...,C] by batch statistics: BatchNorm2d for channels-last tensors."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.reshape(-1, x.shape[-1])).reshape(x.shape)


class Mlp(nn.Module):
    """Inverted bottleneck on [...,C]: Linear C->hidden, activation, Linear hidden->C."""

    def __init__(self, channels: int, hidden: int, activation: nn.Module) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.act = activation
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class CrossCovarianceAttention(nn.Module):
    """Attends between channels instead of tokens, so its cost is linear in T (XCA, section 3.2, equation 2).

    [B,T,C] -> [B,T,C]; per head softmax(normalize(Q) normalize(K)^T * temperature) V, with Q, K, V [d,T].
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        qkv = self.qkv(x).reshape(b, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 4, 1)
        q, k, v = qkv.unbind(0)
        scores = torch.matmul(F.normalize(q, dim=-1), F.normalize(k, dim=-1).transpose(-2, -1))
        weights = (scores * self.temperature).softmax(dim=-1)
        y = torch.matmul(weights, v)
        return self.proj(y.permute(0, 3, 1, 2).reshape(b, t, c))


class FourierPositionEncoding(nn.Module):
    """Gives each token a learned projection of sines and cosines of its row and column (section 3.2).

    Rows and columns count from 1 and are scaled to (0, 2*pi]; 32 features each, base 10000, sine and cosine
    in turn, rows before columns. Result float32 [1,T,C], exact as in training.
    """

    FREQUENCIES = 32
    BASE = 10000.0
    EPSILON = 1e-6

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.token_projection = nn.Conv2d(2 * self.FREQUENCIES, channels, kernel_size=1)

    def _axis_features(self, length: int) -> Tensor:
        weight = self.token_projection.weight
        place = torch.arange(1, length + 1, dtype=weight.dtype, device=weight.device)
        angle = place / (length + self.EPSILON) * (2 * math.pi)
        index = torch.arange(self.FREQUENCIES, dtype=weight.dtype, device=weight.device)
        period = self.BASE ** (2 * torch.div(index, 2, rounding_mode="floor") / self.FREQUENCIES)
        phase = angle[:, None] / period
        return torch.stack((phase[:, 0::2].sin(), phase[:, 1::2].cos()), dim=2).flatten(1)

    def forward(self, height: int, width: int) -> Tensor:
        rows = self._axis_features(height)[:, None, :].expand(height, width, -1)
        columns = self._axis_features(width)[None, :, :].expand(height, width, -1)
        features = torch.cat((rows, columns), dim=2).permute(2, 0, 1)[None]
        return self.token_projection(features).flatten(2).permute(0, 2, 1)


class ConstantPositionEncoding(nn.Module):
    """Holds a position encoding computed ahead for one feature map size: float32 [1,T,C], a constant."""

    encoding: Tensor

    def __init__(self, encoding: Tensor, height: int, width: int) -> None:
        super().__init__()
        self.height = height
        self.width = width
        self.register_buffer("encoding", encoding.detach().clone())

    def forward(self, height: int, width: int) -> Tensor:
        if (height, width) != (self.height, self.width):
            raise UserError(
                f"this model's position encoding was folded for {self.height * 8}x{self.width * 8} pixels, "
                f"but the input has {height * 8}x{width * 8}; build the model again with that input size"
            )
        return self.encoding
