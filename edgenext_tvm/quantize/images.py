"""Image sources for calibration and evaluation: a folder, an .npz file, or synthetic images.

Every source gives raw uint8 RGB images [H,W,3], a label where there is one, and a digest of what was chosen.
"""

from __future__ import annotations

import copy
import hashlib
import io
import zipfile
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from edgenext_tvm.errors import UserError
from edgenext_tvm.quantize.synthetic_images import synthetic_image

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".webp")
SYNTHETIC = "synthetic"
DEFAULT_SYNTHETIC_IMAGES = 64
MAX_SYNTHETIC_IMAGES = 1_000_000
SYNTHETIC_SIZE = 256
EXIF_ORIENTATION = 0x0112


class ImageSet(ABC):
    """A fixed, ordered choice of images. Index i runs from 0 to len - 1."""

    def __init__(self, name: str, total: int, class_names: tuple[str, ...] | None = None) -> None:
        self.name = name
        self.class_names = class_names
        self.seed = 0
        self._chosen: np.ndarray = np.arange(total)

    def __len__(self) -> int:
        return len(self._chosen)

    def image(self, index: int) -> np.ndarray:
        """Image `index`: uint8 [H,W,3], RGB. Fails with `UserError` when it cannot be decoded."""
        return self._decode(int(self._chosen[index]))

    def label(self, index: int) -> int | None:
        """Class number of image `index`, None where the source has no labels."""
        return self._label(int(self._chosen[index]))

    def is_turned(self, index: int) -> bool:
        """True where EXIF data wants image `index` turned or mirrored for display, which `image` does not do."""
        try:
            with Image.open(io.BytesIO(self._encoded(int(self._chosen[index])))) as opened:
                return opened.getexif().get(EXIF_ORIENTATION, 1) != 1
        except (OSError, SyntaxError, ValueError):  # raw pixels, or nothing that `image` could decode either
            return False

    def select(self, limit: int | None, seed: int = 0) -> ImageSet:
        """A set of at most `limit` images of this one, chosen by `seed`, in their old order."""
        if limit is not None and limit < 1:
            raise UserError(f"image limit is {limit}; allowed: 1 or more (try 256)")
        picked: np.ndarray = np.arange(len(self))
        if limit is not None and limit < len(self):
            picked = np.sort(np.random.default_rng(seed).permutation(len(self))[:limit])
        selected = self.pick(picked)
        selected.seed = seed
        return selected

    def pick(self, indices: np.ndarray) -> ImageSet:
        """A set of the images at `indices` of this one, in that order."""
        picked = copy.copy(self)
        picked._chosen = self._chosen[indices]
        return picked

    def sha256(self) -> str:
        """Digest of the chosen images as they are stored (encoded bytes), in order."""
        digest = hashlib.sha256()
        for index in self._chosen:
            encoded = self._encoded(int(index))
            digest.update(f"{len(encoded)}:".encode())
            digest.update(encoded)
        return digest.hexdigest()

    @abstractmethod
    def _encoded(self, index: int) -> bytes: ...

    @abstractmethod
    def _decode(self, index: int) -> np.ndarray: ...

    @abstractmethod
    def _label(self, index: int) -> int | None: ...


class FolderImages(ImageSet):
    """All images under a folder, sorted by path; folders right below it that hold images are classes."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(
            path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
        )
        if not self.paths:
            raise UserError(f"folder {folder} holds no images; allowed: {', '.join(IMAGE_SUFFIXES)}, in subfolders too")
        tops = [path.relative_to(folder).parts[0] if path.parent != folder else None for path in self.paths]
        classes = tuple(sorted({top for top in tops if top is not None}))
        # ImageFolder's rule: labels exist only where every image lies in a class folder.
        labelled = None not in tops
        self.labels = [classes.index(top) if labelled and top else None for top in tops]
        super().__init__(str(folder.name), len(self.paths), classes if labelled else None)

    def _encoded(self, index: int) -> bytes:
        return self.paths[index].read_bytes()

    def _decode(self, index: int) -> np.ndarray:
        return decode_image(self._encoded(index), str(self.paths[index]))

    def _label(self, index: int) -> int | None:
        return self.labels[index]


class NpzImages(ImageSet):
    """An .npz with `jpeg` and `offsets`, or with `images` (uint8 [N,H,W,3]); `labels` and `classes` where
    known.
    """

    def __init__(self, path: Path) -> None:
        arrays = _load_npz(path)
        self.path = path
        self.images: np.ndarray | None = None
        if "images" in arrays:
            self.images = arrays["images"]
            _check_images(path, self.images)
            total = len(self.images)
        elif "jpeg" in arrays and "offsets" in arrays:
            self.jpeg, self.offsets = arrays["jpeg"], arrays["offsets"].astype(np.int64)
            _check_offsets(path, self.jpeg, self.offsets)
            total = len(self.offsets) - 1
        else:
            raise UserError(
                f"{path} holds the arrays {', '.join(sorted(arrays)) or 'none'}; expected 'images' (uint8 "
                "[N,H,W,3]), "
                "or 'jpeg' (all bytes, uint8) with 'offsets' (N+1)"
            )
        self.labels = arrays.get("labels")
        if self.labels is not None:
            _check_labels(path, self.labels, total)
        classes = tuple(str(name) for name in arrays["classes"].ravel()) if "classes" in arrays else None
        super().__init__(path.name, total, classes)

    def _encoded(self, index: int) -> bytes:
        if self.images is not None:
            return self.images[index].tobytes()
        return self.jpeg[self.offsets[index] : self.offsets[index + 1]].tobytes()

    def _decode(self, index: int) -> np.ndarray:
        if self.images is not None:
            return self.images[index]
        return decode_image(self._encoded(index), f"{self.path} (image {index})")

    def _label(self, index: int) -> int | None:
        return None if self.labels is None else int(self.labels[index])


class SyntheticImages(ImageSet):
    """Seeded images that only look natural in their statistics: for shapes, timing and random weights,
    never for accuracy.
    """

    def __init__(self, total: int) -> None:
        super().__init__(f"{SYNTHETIC}:{total}", total)

    def _encoded(self, index: int) -> bytes:
        return self._decode(index).tobytes()

    def _decode(self, index: int) -> np.ndarray:
        return synthetic_image(index, SYNTHETIC_SIZE)

    def _label(self, index: int) -> int | None:
        return None


def open_images(source: str | Path, limit: int | None = None, seed: int = 0) -> ImageSet:
    """Opens a folder, an .npz file or `synthetic[:N]`, and keeps at most `limit` images, chosen by `seed`.

    Fails with `UserError` when there is nothing usable at `source`.
    """
    text = str(source)
    if text == SYNTHETIC or text.startswith(SYNTHETIC + ":"):
        return SyntheticImages(_synthetic_count(text)).select(limit, seed)
    path = Path(source)
    if not path.exists():
        raise UserError(
            f"no images at {path}; give a folder of images, an .npz file, or {SYNTHETIC}[:N] for made-up images"
        )
    if path.is_dir():
        return FolderImages(path).select(limit, seed)
    if path.suffix != ".npz":
        raise UserError(f"{path} is neither a folder nor an .npz file; put single images into a folder and give that")
    return NpzImages(path).select(limit, seed)


def decode_image(encoded: bytes, origin: str) -> np.ndarray:
    """Decodes any supported format to uint8 [H,W,3] RGB; EXIF orientation is ignored.

    Of 16-bit grey the upper 8 bits are kept. Fails with `UserError` for pixels of 32 bits, whose range is unknown.
    """
    try:
        with Image.open(io.BytesIO(encoded)) as opened:
            return _rgb(opened, origin)
    except UnidentifiedImageError:
        # Pillow's own message names the buffer in memory
        raise UserError(
            f"image {origin} cannot be decoded (its format is none that Pillow knows); remove or replace it"
        ) from None
    except UserError:  # a ValueError too
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"image {origin} cannot be decoded ({error}); remove or replace it") from error


def _rgb(opened: Image.Image, origin: str) -> np.ndarray:
    # Pillow's conversion clips wider pixels at 255 instead of scaling them
    is_grey16 = opened.mode.startswith("I;16") or (opened.mode == "I" and opened.format in ("PNG", "PPM"))
    if is_grey16:
        grey = (np.asarray(opened).astype(np.uint32) >> 8).astype(np.uint8)
        return np.ascontiguousarray(np.repeat(grey[:, :, None], 3, axis=2))
    if opened.mode[:1] in ("I", "F"):
        raise UserError(f"image {origin} has 32-bit pixels; allowed are 8 and 16 bits, convert it")
    return np.asarray(opened.convert("RGB"))


def _synthetic_count(text: str) -> int:
    _, _, count = text.partition(":")
    if text == SYNTHETIC:
        return DEFAULT_SYNTHETIC_IMAGES
    # a longer number is not even converted: Python refuses thousands of digits
    is_number = count.isascii() and count.isdigit() and len(count) <= len(str(MAX_SYNTHETIC_IMAGES))
    if not is_number or not 1 <= int(count) <= MAX_SYNTHETIC_IMAGES:
        raise UserError(
            f"image source {text!r} needs a count of 1 or more after the colon, at most {MAX_SYNTHETIC_IMAGES}; "
            f"try {SYNTHETIC}:64"
        )
    return int(count)


def _load_npz(path: Path) -> dict[str, np.ndarray]:
    # np.load takes anything else for a pickle, and says so
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path} cannot be read as an .npz file (no zip archive); it may be truncated, copy it again")
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # zip, zlib, pickle and format errors all mean the same to the user
        raise UserError(
            f"{path} cannot be read as an .npz file ({error}); it may be truncated, copy it again"
        ) from error


def _check_images(path: Path, images: np.ndarray) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or not images.size:
        raise UserError(
            f"{path}: array 'images' is {images.dtype} {list(images.shape)}; "
            "expected uint8 [N,H,W,3] with N of 1 or more"
        )


def _check_labels(path: Path, labels: np.ndarray, total: int) -> None:
    if labels.ndim != 1 or len(labels) != total:
        raise UserError(f"{path}: array 'labels' has {labels.size} entries for {total} images; expected one each")
    if labels.dtype.kind not in "iu" or labels.min() < 0:
        raise UserError(
            f"{path}: array 'labels' is {labels.dtype}, beginning with {labels[0]}; "
            "expected class numbers, integers from 0"
        )


def _check_offsets(path: Path, jpeg: np.ndarray, offsets: np.ndarray) -> None:
    valid = (
        jpeg.dtype == np.uint8 and jpeg.ndim == 1 and offsets.ndim == 1 and len(offsets) >= 2
        and offsets[0] >= 0 and offsets[-1] <= len(jpeg) and bool(np.all(np.diff(offsets) > 0))
    )  # fmt: skip
    if not valid:
        raise UserError(
            f"{path}: 'offsets' does not cut 'jpeg' into images; expected N+1 rising positions within its "
            f"{jpeg.size} bytes"
        )
