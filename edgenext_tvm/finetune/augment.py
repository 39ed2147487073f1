"""Random views of a batch of images: crop, mirror, colour, erasing, in one bilinear resampling."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_ASPECT = 4 / 3
COLOUR_RANGE = 0.25
ERASED_SHARE = 0.25
ERASE_PROBABILITY = 0.3
# Images larger than this many times the view are first made smaller: sampling alone would alias.
MAX_REDUCTION = 1.5


def augment(pixels: Tensor, side: int, min_crop: float, generator: torch.Generator) -> Tensor:
    """Random views: uint8 [N,3,R,R] to float32 [N,3,side,side] in [0, 1]; equal generators give equal views.

    Per image: a crop of [min_crop, 1] of the area with an aspect of 3/4 to 4/3, mirrored half of the time; contrast and
    brightness changed by up to COLOUR_RANGE; with ERASE_PROBABILITY a square of the view made mean grey.
    """
    n = len(pixels)

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(n, generator=generator) * (high - low) + low

    area = uniform(min_crop, 1.0)
    aspect = torch.exp(uniform(-math.log(MAX_ASPECT), math.log(MAX_ASPECT)))
    width, height = (area * aspect).sqrt().clamp(max=1.0), (area / aspect).sqrt().clamp(max=1.0)
    x, y = uniform(-1.0, 1.0) * (1.0 - width), uniform(-1.0, 1.0) * (1.0 - height)
    mirror = (uniform(0.0, 1.0) < 0.5).float() * 2.0 - 1.0
    zero = torch.zeros(n)
    theta = torch.stack([torch.stack([width * mirror, zero, x], 1), torch.stack([zero, height, y], 1)], 1)
    contrast, brightness = uniform(1 - COLOUR_RANGE, 1 + COLOUR_RANGE), uniform(-COLOUR_RANGE, COLOUR_RANGE)
    erased = (uniform(0.0, 1.0) < ERASE_PROBABILITY).float() * ERASED_SHARE
    centre_x, centre_y = uniform(-1.0, 1.0), uniform(-1.0, 1.0)

    device, images = pixels.device, pixels.float() / 255.0
    if pixels.shape[-1] > MAX_REDUCTION * side:
        reduced = round(MAX_REDUCTION * side)
        images = F.interpolate(images, (reduced, reduced), mode="bilinear", align_corners=False, antialias=True)
    grid = F.affine_grid(theta.to(device), [n, 3, side, side], align_corners=False)
    views = F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)

    def per_image(values: Tensor) -> Tensor:
        return values.to(device).reshape(n, 1, 1, 1)

    mean = views.mean((1, 2, 3), keepdim=True)
    views = ((views - mean) * per_image(contrast) + mean * (1.0 + per_image(brightness))).clamp(0.0, 1.0)
    axis = torch.linspace(-1.0, 1.0, side, device=device)
    inside_x = (axis - per_image(centre_x)).abs() < per_image(erased)
    inside_y = (axis.reshape(1, 1, side, 1) - per_image(centre_y)).abs() < per_image(erased)
    return torch.where(inside_x & inside_y, mean.expand_as(views), views)


def plain(pixels: Tensor, side: int) -> Tensor:
    """The same without chance: uint8 [N,3,R,R] to float32 [N,3,side,side] in [0, 1], resized whole."""
    return F.interpolate(
        pixels.float() / 255.0, (side, side), mode="bilinear", align_corners=False, antialias=pixels.shape[-1] > side
    )
