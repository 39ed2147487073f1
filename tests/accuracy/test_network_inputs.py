"""Native inputs are resized in float and never rounded; the library's are, and differ by no more than that."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from edgenext_tvm.accuracy.network_inputs import library_input, native_input
from edgenext_tvm.quantize import Preprocessing

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize(("height", "width"), [(20, 31), (90, 64), (32, 32)])
def test_native_is_pillows_filter_without_rounding(height: int, width: int) -> None:
    preprocessing = Preprocessing(resize_size=32, crop_size=32, **PLAIN)
    pixels = image(height, width)
    short = min(height, width)
    size = (32 * width // short, 32 * height // short)
    channels = [
        np.asarray(Image.fromarray(pixels[:, :, c].astype(np.float32)).resize(size, Image.Resampling.BILINEAR))
        for c in range(3)
    ]
    left, top = (round((extent - 32) / 2) for extent in size)
    expected = np.stack(channels)[:, top : top + 32, left : left + 32] / 255
    np.testing.assert_allclose(native_input(pixels, preprocessing).numpy(), expected, atol=2e-5)


@pytest.mark.parametrize(("height", "width"), [(20, 31), (90, 64)])
def test_the_librarys_input_is_rounded_to_levels_and_at_most_a_level_apart(height: int, width: int) -> None:
    preprocessing = Preprocessing(resize_size=36, crop_size=32, **PLAIN)
    pixels = image(height, width)
    ours, native = library_input(pixels, preprocessing) * 255, native_input(pixels, preprocessing) * 255
    np.testing.assert_allclose(ours, np.rint(ours), atol=1e-4)
    apart = np.abs(ours.numpy() - native.numpy())
    # rows and columns are rounded one after the other
    assert 0 < apart.max() <= 1.01


def test_without_resizing_both_are_the_pixels_normalised() -> None:
    preprocessing = Preprocessing(resize_size=32, crop_size=32)
    pixels = image(32, 32)
    np.testing.assert_allclose(native_input(pixels, preprocessing), library_input(pixels, preprocessing), atol=1e-6)


def test_an_odd_rest_is_cropped_where_the_library_crops() -> None:
    preprocessing = Preprocessing(resize_size=35, crop_size=32, **PLAIN)
    pixels = image(35, 40)
    np.testing.assert_allclose(native_input(pixels, preprocessing), library_input(pixels, preprocessing), atol=1e-6)
