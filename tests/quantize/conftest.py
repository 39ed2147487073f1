"""A small network with every structure of EdgeNeXt, and what the tests ask of a quantize/dequantize graph."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgenext_tvm.quantize import Preprocessing, QuantizedProgram, open_images, quantize_model

CHANNELS, SIDE, HEADS = 12, 8, 2


class Bottleneck(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(CHANNELS, elementwise_affine=False)
        self.fc1 = nn.Linear(CHANNELS, 4 * CHANNELS)
        self.fc2 = nn.Linear(4 * CHANNELS, CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(self.norm(x))))


class ConvBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dw = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=CHANNELS)
        self.mlp = Bottleneck()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(self.dw(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.full((HEADS, 1, 1), 3.0))
        self.qkv = nn.Linear(CHANNELS, 3 * CHANNELS)
        self.proj = nn.Linear(CHANNELS, CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        q, k, v = self.qkv(x).reshape(b, t, 3, HEADS, c // HEADS).permute(2, 0, 3, 4, 1).unbind(0)
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
        y = (scores * self.temperature).softmax(-1) @ v
        return self.proj(y.permute(0, 3, 1, 2).reshape(b, t, c))


class SplitBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        width = CHANNELS // 3
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, groups=width) for _ in range(2))
        self.register_buffer("position", torch.randn(1, SIDE * SIDE, CHANNELS))
        self.norm = nn.LayerNorm(CHANNELS, elementwise_affine=False)
        self.attention = Attention()

    def forward(self, x: Tensor) -> Tensor:
        a, b, c = torch.split(x, CHANNELS // 3, dim=1)
        first = self.convs[0](a)
        y = torch.cat([first, self.convs[1](first + b), c], dim=1)
        y = y.permute(0, 2, 3, 1).reshape(x.shape[0], SIDE * SIDE, CHANNELS) + self.position
        y = y + self.attention(self.norm(y))
        return x + y.reshape(-1, SIDE, SIDE, CHANNELS).permute(0, 3, 1, 2)


class SmallHybrid(nn.Module):
    """float32 [N,3,32,32] to logits [N,5]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, CHANNELS, 4, stride=4)
        self.conv_block = ConvBlock()
        self.split_block = SplitBlock()
        self.norm = nn.LayerNorm(CHANNELS, elementwise_affine=False)
        self.fc = nn.Linear(CHANNELS, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.split_block(self.conv_block(self.stem(x)))
        return self.fc(self.norm(y.mean((2, 3))))


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    # Batch 1 gains nothing from more threads, and on a busy machine they wait for each other.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def small_model() -> nn.Module:
    torch.manual_seed(0)
    return SmallHybrid().eval()


@pytest.fixture(scope="session")
def small_preprocessing() -> Preprocessing:
    return Preprocessing(resize_size=36, crop_size=32)


@pytest.fixture(scope="session")
def small_program(small_model: nn.Module, small_preprocessing: Preprocessing) -> QuantizedProgram:
    return quantize_model(small_model, open_images("synthetic:6"), small_preprocessing, quiet=True)


@pytest.fixture(scope="session")
def small_input() -> Tensor:
    return torch.from_numpy(np.random.default_rng(3).normal(size=(1, 3, 32, 32)).astype(np.float32))
