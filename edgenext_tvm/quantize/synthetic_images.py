"""Made-up images with the statistics of photographs: 1/f noise for texture, flat shapes for edges."""

from __future__ import annotations

import numpy as np

SHAPES_PER_IMAGE = 6
# Correlation between colour channels, near that of photographs.
SHARED_BRIGHTNESS = 0.8


def synthetic_image(seed: int, size: int) -> np.ndarray:
    """Image number `seed`, uint8 [size,size,3] RGB: the same bits for the same arguments on one NumPy
    version.
    """
    rng = np.random.default_rng(seed)
    brightness = _pink_noise(rng, size)
    image = np.stack(
        [SHARED_BRIGHTNESS * brightness + (1 - SHARED_BRIGHTNESS) * _pink_noise(rng, size) for _ in range(3)],
        axis=2,
    )
    image = rng.uniform(60, 190, size=3) + image * rng.uniform(20, 60)
    rows, columns = np.mgrid[0:size, 0:size]
    for _ in range(SHAPES_PER_IMAGE):
        centre_row, centre_column = rng.uniform(0, size, size=2)
        half_height, half_width = rng.uniform(size / 20, size / 4, size=2)
        down, across = (rows - centre_row) / half_height, (columns - centre_column) / half_width
        inside = down**2 + across**2 < 1 if rng.random() < 0.5 else np.maximum(abs(down), abs(across)) < 1
        image[inside] = 0.4 * image[inside] + 0.6 * rng.uniform(0, 255, size=3)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _pink_noise(rng: np.random.Generator, size: int) -> np.ndarray:
    """Noise whose amplitude falls as 1/frequency (Field 1987), mean 0, standard deviation 1, float64
    [size,size].
    """
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) / frequency
    noise = np.fft.irfft2(spectrum, s=(size, size))
    return noise / noise.std()
