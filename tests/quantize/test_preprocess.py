"""The reference preprocessing, checked against PyTorch's own resizing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from edgenext_tvm.quantize.preprocess import Preprocessing


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), np.uint8)


def torch_resize(image: np.ndarray, size: tuple[int, int], antialias: bool) -> np.ndarray:
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    y = F.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=antialias)
    return y[0].permute(1, 2, 0).numpy()


def test_enlarging_equals_plain_bilinear() -> None:
    image = noise(32, 32)
    pixels = Preprocessing(resize_size=128, crop_size=128).pixels(image)
    assert np.abs(pixels - torch_resize(image, (128, 128), antialias=False)).max() <= 1.01


def test_shrinking_is_antialiased() -> None:
    image = noise(200, 200)
    pixels = Preprocessing(resize_size=64, crop_size=64).pixels(image)
    assert np.abs(pixels - torch_resize(image, (64, 64), antialias=True)).max() <= 1.01


def test_short_side_is_resized_and_the_centre_kept() -> None:
    image = np.zeros((50, 100, 3), np.uint8)
    image[:, 25:75] = 255
    pixels = Preprocessing(resize_size=50, crop_size=50).pixels(image)
    assert pixels.shape == (50, 50, 3)
    assert pixels.min() == 255


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 9))
def test_any_image_becomes_the_input_shape(height: int, width: int, border: int) -> None:
    values = Preprocessing(resize_size=32 + border, crop_size=32)(noise(height, width))
    assert (values.shape, values.dtype) == ((3, 32, 32), np.float32)
    assert np.isfinite(values).all()


def test_normalisation_is_per_channel_in_rgb_order() -> None:
    image = np.full((8, 8, 3), (255, 0, 51), np.uint8)
    preprocessing = Preprocessing(resize_size=8, crop_size=8, mean=(0.5, 0.4, 0.3), std=(0.5, 0.2, 0.1))
    assert preprocessing(image)[:, 0, 0].tolist() == pytest.approx([1.0, -2.0, -1.0])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"resize_size": 8, "crop_size": 9}, "crop_size 9 is larger than resize_size 8"),
        ({"resize_size": 8, "crop_size": 8, "std": (1.0, 0.0, 1.0)}, "greater than 0"),
        ({"resize_size": 8, "crop_size": 8, "interpolation": "bicubic"}, "'bilinear'"),
        ({"resize_size": 0, "crop_size": 8}, "greater than or equal to 1"),
    ],
)
def test_impossible_preprocessing_is_refused(values: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Preprocessing(**values)
