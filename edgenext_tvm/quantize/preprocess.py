"""Image preprocessing, the reference: short side resized, centre cropped, scaled to [0, 1], normalised.

The device does the same in C; this file is what it is checked against.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, model_validator

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Preprocessing(BaseModel):
    """What happens between an RGB image of any size and the network's input.

    resize_size: the short side after resizing, in pixels. crop_size: side of the centre crop, the network's
        input size.
    mean, std: per channel R, G, B, in units of [0, 1]. class_names: one per class, or null.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    resize_size: Annotated[int, Field(ge=1, le=65536)]
    crop_size: Annotated[int, Field(ge=1, le=65536)]
    interpolation: Literal["bilinear"] = "bilinear"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = IMAGENET_STD
    class_names: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _crop_fits(self) -> Preprocessing:
        if self.crop_size > self.resize_size:
            raise ValueError(f"crop_size {self.crop_size} is larger than resize_size {self.resize_size}")
        return self

    def pixels(self, image: np.ndarray) -> np.ndarray:
        """Resized and cropped image: uint8 [H,W,3] of any size to uint8 [crop,crop,3], RGB.

        Pillow's bilinear filter with antialiasing; for enlarging it equals bilinear with
        `align_corners=False`.
        """
        height, width = image.shape[:2]
        short = min(height, width)
        size = (max(1, self.resize_size * width // short), max(1, self.resize_size * height // short))
        resized = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)
        # torchvision's CenterCrop, and the C library: halves to even
        left, top = (round((extent - self.crop_size) / 2) for extent in size)
        box = (left, top, left + self.crop_size, top + self.crop_size)
        return np.asarray(resized.crop(box))

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Network input: uint8 [H,W,3] RGB to float32 [3,crop,crop]."""
        scaled = self.pixels(image).astype(np.float32) / np.float32(255)
        normalised = (scaled - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        return np.ascontiguousarray(normalised.transpose(2, 0, 1))
