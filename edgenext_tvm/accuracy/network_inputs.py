"""Network inputs: as training saw them, resized in float and never rounded, and as the library makes them."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from edgenext_tvm.quantize.preprocess import Preprocessing


def native_input(image: np.ndarray, preprocessing: Preprocessing) -> torch.Tensor:
    """Network input float32 [3,S,S] of an image uint8 [H,W,3]: resized, cropped and normalised in float32.

    Bilinear, align_corners=False, antialiased when shrinking; the sizes and the crop are the library's own.
    """
    height, width = image.shape[:2]
    short = min(height, width)
    size = [max(1, preprocessing.resize_size * extent // short) for extent in (height, width)]
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
    resized = F.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=True)[0]
    top, left = (round((extent - preprocessing.crop_size) / 2) for extent in size)
    cropped = resized[:, top : top + preprocessing.crop_size, left : left + preprocessing.crop_size]
    mean, std = (torch.tensor(values)[:, None, None] for values in (preprocessing.mean, preprocessing.std))
    return (cropped - mean) / std


def library_input(image: np.ndarray, preprocessing: Preprocessing) -> torch.Tensor:
    """Network input float32 [3,S,S] of an image uint8 [H,W,3]: resized in 8 bits, before the input is quantized."""
    return torch.from_numpy(preprocessing(image))
