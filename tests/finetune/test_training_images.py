"""Images for training: size, labels, memory, and the part that is held out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from edgenext_tvm.errors import UserError
from edgenext_tvm.finetune.training_images import TrainingImages, count_turned, labels_of, split_off
from edgenext_tvm.quantize import open_images


def npz(path: Path, count: int, side: int = 32, **arrays: np.ndarray) -> Path:
    images = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)
    np.savez(path, images=images, **arrays)
    return path


def test_photographs_are_cropped_to_squares_a_little_larger_than_the_input(squares: Path) -> None:
    images = TrainingImages(open_images(squares), 64)
    pixels, label = images[0]
    assert (pixels.shape, pixels.dtype, label) == ((3, 73, 73), torch.uint8, 0)
    assert images.labels.tolist() == [0] * 22 + [1] * 22 + [2] * 22


def test_small_equal_squares_keep_their_size(tmp_path: Path) -> None:
    images = TrainingImages(open_images(npz(tmp_path / "x.npz", 4, labels=np.arange(4))), 64)
    assert images.side == 32
    assert np.array_equal(images[2][0].permute(1, 2, 0).numpy(), images.images.image(2))


def test_in_memory_or_not_the_pixels_are_the_same(squares: Path) -> None:
    images = TrainingImages(open_images(squares), 64)
    read = [images[index][0] for index in (0, 30, 65)]
    counted: list[int] = []
    images.load(3, counted.append)
    assert counted == list(range(1, 67))
    assert all(torch.equal(pixels, images[index][0]) for pixels, index in zip(read, (0, 30, 65), strict=True))


def test_what_does_not_fit_is_not_loaded(squares: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = TrainingImages(open_images(squares), 64)
    assert images.fits_in_memory
    monkeypatch.setattr("edgenext_tvm.finetune.training_images.MAX_IMAGES_IN_MEMORY_BYTES", 66 * 3 * 73 * 73 - 1)
    assert not images.fits_in_memory


def test_a_damaged_image_is_named_while_loading(squares: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for index in range(40):
            (tmp_path / name / f"{index:02}.png").write_bytes((squares / "red" / "000.png").read_bytes())
    (tmp_path / "b" / "06.png").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"b/06\.png cannot be decoded .*remove or replace it"):
        TrainingImages(open_images(tmp_path), 64).load(2)


def test_images_without_classes(squares: Path) -> None:
    with pytest.raises(UserError, match=r"red has images without a class; put every image into a folder named after"):
        labels_of(open_images(squares / "red"))


def test_a_label_without_a_name(tmp_path: Path) -> None:
    path = npz(tmp_path / "x.npz", 3, labels=np.array([0, 1, 2]), classes=np.array(["cat", "dog"]))
    with pytest.raises(UserError, match=r"x\.npz has the label 2, but names for 2 classes only"):
        labels_of(open_images(path))


def test_the_held_out_part_is_chosen_by_the_seed_and_shares_nothing(squares: Path) -> None:
    images = open_images(squares)
    rest, held = split_off(images, 0.2, 0)
    assert (len(rest), len(held)) == (53, 13)
    assert sorted([*rest._chosen, *held._chosen]) == list(range(66))
    again, other = split_off(images, 0.2, 0)[1], split_off(images, 0.2, 1)[1]
    assert np.array_equal(held._chosen, again._chosen) and not np.array_equal(held._chosen, other._chosen)


def test_a_class_is_never_held_out_whole(tmp_path: Path) -> None:
    labels = np.array([0] * 30 + [1] * 9 + [2])
    images = open_images(npz(tmp_path / "x.npz", 40, labels=labels))
    for seed in range(20):
        rest, held = split_off(images, 0.5, seed)
        assert set(labels_of(rest)) == {0, 1, 2} and len(held) in (19, 20)


@pytest.mark.parametrize("share", [0.001, 0.999, -0.1, 2.0])
def test_holding_out_nothing_or_all(squares: Path, share: float) -> None:
    with pytest.raises(UserError, match=r"of 66 images leaves nothing to train or to validate on"):
        split_off(open_images(squares), share, 0)


def test_no_class_has_an_image_to_spare(tmp_path: Path) -> None:
    images = open_images(npz(tmp_path / "x.npz", 3, labels=np.arange(3)))
    with pytest.raises(UserError, match=r"too few images of each class to hold out 0\.4 of them.*--hold-out 0"):
        split_off(images, 0.4, 0)


def test_turned_photographs_are_counted(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for index in range(4):
        extra = {"exif": exif} if index < 3 else {}
        Image.new("RGB", (9, 9)).save(tmp_path / f"{index}.jpg", **extra)
    assert count_turned(open_images(tmp_path)) == 3
