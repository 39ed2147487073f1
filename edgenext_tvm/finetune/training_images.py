"""Labelled images for training: square, of one size, as uint8; in memory where they fit, else read when needed."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from edgenext_tvm.errors import UserError
from edgenext_tvm.quantize.images import ImageSet

# A random crop of a photograph that is stored a little larger than the network's input loses no detail.
STORED_SHARE = 256 / 224
MAX_IMAGES_IN_MEMORY_BYTES = 4 << 30
MAX_SHARE_OF_FREE_MEMORY = 0.5
PROBED_IMAGES = 32


class TrainingImages(Dataset):
    """Item i is (uint8 [3,R,R] RGB, class number). R: the images' own size where all probed are equal squares of at
    most the size wanted, else `input_size` * 256/224, centre cropped. `images` needs a label for each.
    """

    def __init__(self, images: ImageSet, input_size: int) -> None:
        self.images = images
        self.labels = labels_of(images)
        self.side = _stored_side(images, round(input_size * STORED_SHARE))
        self.stored: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        pixels = self.stored[index] if self.stored is not None else self._decode(index)
        return pixels, int(self.labels[index])

    @property
    def fits_in_memory(self) -> bool:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return len(self) * 3 * self.side**2 <= min(MAX_IMAGES_IN_MEMORY_BYTES, free * MAX_SHARE_OF_FREE_MEMORY)

    def load(self, threads: int = 1, decoded: Callable[[int], None] = lambda _: None) -> None:
        """Decodes every image into memory, once, and calls `decoded` with how many are done; UserError names the first
        that cannot be decoded.
        """
        stored = torch.empty(len(self), 3, self.side, self.side, dtype=torch.uint8)

        def decode(index: int) -> None:
            stored[index] = self._decode(index)

        pool = ThreadPoolExecutor(max(1, threads))
        try:
            for count, _ in enumerate(pool.map(decode, range(len(self))), 1):
                decoded(count)
        finally:
            pool.shutdown(cancel_futures=True)
        self.stored = stored

    def _decode(self, index: int) -> Tensor:
        image = self.images.image(index)
        if image.shape[:2] != (self.side, self.side):
            image = _square(image, self.side)
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def labels_of(images: ImageSet) -> np.ndarray:
    """The class number of every image, int64 [N]. UserError where one has none, or one beyond the names."""
    labels = [images.label(index) for index in range(len(images))]
    if None in labels:
        raise UserError(
            f"{images.name} has images without a class; put every image into a folder named after its class "
            "(DIR/cat/1.jpg), or give an .npz with 'labels'"
        )
    found = np.asarray(labels, np.int64)
    if images.class_names and found.max() >= len(images.class_names):
        raise UserError(
            f"{images.name} has the label {found.max()}, but names for {len(images.class_names)} classes only; "
            "labels count from 0, give a name for each"
        )
    return found


def split_off(images: ImageSet, share: float, seed: int) -> tuple[ImageSet, ImageSet]:
    """Splits off `share` of the images, chosen by `seed`: (the rest, the held-out ones). The rest keeps every class."""
    count = round(len(images) * share)
    if not 0 < count < len(images):
        raise UserError(
            f"holding out {share:g} of {len(images)} images leaves nothing to train or to validate on; "
            "give more images, another --hold-out, or --validation DIR"
        )
    order = np.random.default_rng(seed).permutation(len(images))
    held, rest = np.sort(order[:count]), np.sort(order[count:])
    labels = labels_of(images)
    # an image whose class nothing else shows is worth more to training
    lost = np.isin(labels[held], labels[rest], invert=True)
    held, rest = held[~lost], np.sort(np.concatenate([rest, held[lost]]))
    if not len(held):
        raise UserError(
            f"{images.name} has too few images of each class to hold out {share:g} of them; give more images, or "
            "--hold-out 0 for no validation"
        )
    return images.pick(rest), images.pick(held)


def count_turned(images: ImageSet) -> int:
    """How many of some images, evenly spread, are photographs that their EXIF data wants turned."""
    return sum(images.is_turned(index) for index in _probed(images))


def _probed(images: ImageSet) -> list[int]:
    return np.linspace(0, len(images) - 1, min(len(images), PROBED_IMAGES)).astype(int).tolist()


def _stored_side(images: ImageSet, wanted: int) -> int:
    shapes = {images.image(index).shape[:2] for index in _probed(images)}
    height, width = next(iter(shapes))
    return height if len(shapes) == 1 and height == width <= wanted else wanted


def _square(image: np.ndarray, side: int) -> np.ndarray:
    height, width = image.shape[:2]
    short = min(height, width)
    left, top = (width - short) / 2, (height - short) / 2
    box = (left, top, left + short, top + short)
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR, box=box))
