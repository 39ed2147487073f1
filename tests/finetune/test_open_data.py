"""Opening training data: classes, validation of the same classes, and what the user is warned of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgenext_tvm.errors import UserError
from edgenext_tvm.finetune.open_data import Data, open_data


def opened(images: Path, validation: Path | None = None, hold_out: float = 0.0, said: list[str] | None = None) -> Data:
    say = (lambda _: None) if said is None else said.append
    return open_data(images, validation, hold_out, stored_size=96, validation_size=64, limit=None, seed=0, say=say)


def numbered(path: Path, labels: list[int]) -> Path:
    np.savez(path, images=np.zeros((len(labels), 8, 8, 3), np.uint8), labels=np.array(labels))
    return path


def test_training_images_serve_the_largest_phase_and_validation_the_last(squares: Path) -> None:
    data = opened(squares, hold_out=0.1)
    assert data.classes == ("blue", "green", "red")
    assert (len(data.training), len(data.validation or ())) == (59, 7)
    assert (data.training.side, data.validation and data.validation.side) == (110, 73)
    assert opened(squares).validation is None


def test_a_validation_folder_leaves_all_images_to_training(squares: Path) -> None:
    data = opened(squares, squares, 0.1)
    assert (len(data.training), len(data.validation or ())) == (66, 66)


def test_images_without_class_names_are_numbered(tmp_path: Path) -> None:
    assert opened(numbered(tmp_path / "x.npz", [0, 3, 1])).classes == ("0", "1", "2", "3")


def test_a_class_that_is_held_out_whole_still_counts(tmp_path: Path) -> None:
    data = opened(numbered(tmp_path / "x.npz", [0] * 20 + [1] * 20 + [2]), hold_out=0.5)
    assert data.classes == ("0", "1", "2")
    assert 2 in data.training.labels


def test_one_class_only(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"x\.npz holds one class only; training needs images of at least two"):
        opened(numbered(tmp_path / "x.npz", [0, 0]))


def test_validation_images_may_show_one_class_only(squares: Path, tmp_path: Path) -> None:
    data = opened(numbered(tmp_path / "x.npz", [0, 1]), numbered(tmp_path / "y.npz", [1, 1]))
    assert len(data.validation or ()) == 2


def test_validation_of_other_classes(squares: Path, tmp_path: Path) -> None:
    for name in ("blue", "yellow"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (9, 9)).save(tmp_path / name / "x.png")
    with pytest.raises(UserError, match=r"have the classes blue, yellow, the training images blue, green, red; give"):
        opened(squares, tmp_path)
    with pytest.raises(UserError, match=r"have the classes without names, the training images blue, green, red"):
        opened(squares, numbered(tmp_path / "x.npz", [0, 1]))


def test_a_number_that_only_validation_has(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"validation images have the label 2, which no training image has; .* 0 to 1"):
        opened(numbered(tmp_path / "x.npz", [0, 1]), numbered(tmp_path / "y.npz", [0, 2]))


def test_warnings(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (9, 9)).save(tmp_path / name / "x.jpg", exif=exif)
    said: list[str] = []
    opened(tmp_path, said=said)
    assert len(said) == 1 and said[0].startswith("warning: 2 of the photos looked at are stored turned (EXIF)")
    said.clear()
    np.savez(tmp_path / "x.npz", images=np.zeros((2, 8, 8, 3), np.uint8), labels=[0, 2], classes=["a", "b", "c"])
    opened(tmp_path / "x.npz", said=said)
    assert said == ["warning: no training image shows b; the network will not know them"]
