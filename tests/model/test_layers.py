"""Each layer equals its definition, written out plainly in NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from edgenext_tvm.errors import UserError
from edgenext_tvm.model.layers import (
    BatchNormLast,
    ConstantPositionEncoding,
    CrossCovarianceAttention,
    FourierPositionEncoding,
    LayerNorm2d,
)


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_layer_norm_2d_normalises_channels_of_each_pixel() -> None:
    norm = LayerNorm2d(6, eps=1e-6)
    norm.weight.copy_(_random(6))
    norm.bias.copy_(_random(6))
    x = _random(2, 6, 3, 4).double().numpy()
    mean, variance = x.mean(1, keepdims=True), x.var(1, keepdims=True)
    scaled = (x - mean) / np.sqrt(variance + 1e-6)
    expected = scaled * norm.weight.numpy().reshape(1, 6, 1, 1) + norm.bias.numpy().reshape(1, 6, 1, 1)
    np.testing.assert_allclose(norm(torch.from_numpy(x).float()).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_last_is_batch_norm_2d_in_channels_last(training: bool) -> None:
    last, plain = BatchNormLast(6).train(training), nn.BatchNorm2d(6).train(training)
    x = _random(3, 6, 4, 5) * 2 + 1
    for _ in range(2):
        expected = plain(x).permute(0, 2, 3, 1)
        torch.testing.assert_close(last(x.permute(0, 2, 3, 1)), expected)
    torch.testing.assert_close(last.running_var, plain.running_var)
    torch.testing.assert_close(last.running_mean, plain.running_mean)


@torch.no_grad()
def test_cross_covariance_attention_is_equation_2_per_head() -> None:
    channels, heads, tokens = 12, 3, 7
    d = channels // heads
    xca = CrossCovarianceAttention(channels, heads)
    xca.temperature.copy_(torch.tensor([0.5, 1.0, 4.0]).reshape(3, 1, 1))
    x = _random(2, tokens, channels)
    qkv = (x @ xca.qkv.weight.T + xca.qkv.bias).double().numpy()
    mixed = np.zeros((2, tokens, channels))
    for b in range(2):
        for h in range(heads):
            starts = [part * channels + h * d for part in range(3)]
            q, k, v = (qkv[b, :, start : start + d].T for start in starts)
            q = q / np.linalg.norm(q, axis=1, keepdims=True)
            k = k / np.linalg.norm(k, axis=1, keepdims=True)
            scores = q @ k.T * float(xca.temperature[h])
            weights = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
            mixed[b, :, h * d : (h + 1) * d] = (weights @ v).T
    expected = mixed @ xca.proj.weight.double().numpy().T + xca.proj.bias.double().numpy()
    np.testing.assert_allclose(xca(x).numpy(), expected, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(8, 8), (3, 5)])
def test_fourier_position_encoding_by_its_formula(height: int, width: int) -> None:
    encoding = FourierPositionEncoding(4)
    features = np.zeros((height, width, 64))
    for y in range(height):
        for x in range(width):
            for half, (place, length) in enumerate([(y, height), (x, width)]):
                angle = (place + 1) / length * 2 * math.pi
                for i in range(16):
                    phase = angle / 10000 ** (2 * i / 32)
                    features[y, x, 32 * half + 2 * i] = math.sin(phase)
                    features[y, x, 32 * half + 2 * i + 1] = math.cos(phase)
    weight = encoding.token_projection.weight.double().numpy().reshape(4, 64)
    expected = features.reshape(-1, 64) @ weight.T + encoding.token_projection.bias.double().numpy()
    actual = encoding(height, width)
    assert actual.shape == (1, height * width, 4)
    np.testing.assert_allclose(actual[0].numpy(), expected, atol=1e-5)


def test_constant_position_encoding_gives_its_buffer_and_refuses_other_sizes() -> None:
    value = _random(1, 64, 4)
    constant = ConstantPositionEncoding(value, 8, 8)
    assert torch.equal(constant(8, 8), value)
    with pytest.raises(UserError, match=r"folded for 64x64 pixels, but the input has 96x64; build"):
        constant(12, 8)
