"""Synthetic images: repeatable, in range, with the spectrum of photographs."""

from __future__ import annotations

import numpy as np

from edgenext_tvm.quantize.synthetic_images import synthetic_image


def test_same_seed_same_image() -> None:
    assert np.array_equal(synthetic_image(3, 64), synthetic_image(3, 64))
    assert not np.array_equal(synthetic_image(3, 64), synthetic_image(4, 64))


def test_values_fill_the_range_of_bytes() -> None:
    images = np.stack([synthetic_image(seed, 96) for seed in range(8)])
    assert images.dtype == np.uint8
    assert 40 < images.mean() < 215
    assert images.std() > 25
    assert int(images.max()) - int(images.min()) > 150


def test_amplitude_falls_with_frequency() -> None:
    amplitude = np.mean(
        [abs(np.fft.rfft(synthetic_image(seed, 128)[..., 1], axis=1)) for seed in range(8)], axis=(0, 1)
    )
    low, middle, high = amplitude[1:4].mean(), amplitude[8:16].mean(), amplitude[40:60].mean()
    assert low > 2 * middle > 4 * high


def test_colour_channels_are_alike_but_not_equal() -> None:
    image = synthetic_image(0, 96).astype(float).reshape(-1, 3)
    correlation = np.corrcoef(image.T)
    assert correlation.min() > 0.3
    assert correlation[0, 1] < 0.9999
