"""Image sources: folders, .npz files and synthetic images, and how wrong ones are refused."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgenext_tvm.errors import UserError
from edgenext_tvm.quantize.images import decode_image, open_images

RED, BLUE = (250, 5, 5), (5, 5, 250)


def picture(colour: tuple[int, int, int], size: tuple[int, int] = (6, 4)) -> Image.Image:
    return Image.new("RGB", size, colour)


def jpeg(colour: tuple[int, int, int]) -> np.ndarray:
    buffer = io.BytesIO()
    picture(colour).save(buffer, "jpeg")
    return np.frombuffer(buffer.getvalue(), np.uint8)


@pytest.fixture
def class_folder(tmp_path: Path) -> Path:
    for name, colour in (("apple", RED), ("sea", BLUE)):
        folder = tmp_path / "photos" / name / "deeper"
        folder.mkdir(parents=True)
        for suffix in ("png", "JPG", "webp", "bmp", "ppm", "jpeg"):
            picture(colour).save(folder / f"one.{suffix}")
        (folder / "notes.txt").write_text("not an image")
    return tmp_path / "photos"


@pytest.fixture
def jpeg_npz(tmp_path: Path) -> Path:
    pieces = [jpeg(RED), jpeg(BLUE), jpeg(RED)]
    path = tmp_path / "images.npz"
    np.savez(
        path,
        jpeg=np.concatenate(pieces),
        offsets=np.cumsum([0] + [len(piece) for piece in pieces]),
        labels=np.array([0, 1, 0], np.uint8),
        classes=np.array(["red", "blue"]),
    )
    return path


def test_folder_is_read_recursively_in_every_format(class_folder: Path) -> None:
    images = open_images(class_folder)
    assert len(images) == 12
    assert images.class_names == ("apple", "sea")
    assert [images.label(index) for index in range(12)] == [0] * 6 + [1] * 6
    first = images.image(0)
    assert (first.shape, first.dtype) == ((4, 6, 3), np.uint8)
    assert all(images.image(index)[2, 2, 0] > 200 for index in range(6))
    assert all(images.image(index)[2, 2, 2] > 200 for index in range(6, 12))


def test_folder_with_loose_images_has_no_labels(class_folder: Path) -> None:
    picture(RED).save(class_folder / "loose.png")
    images = open_images(class_folder)
    assert images.class_names is None
    assert {images.label(index) for index in range(len(images))} == {None}


def test_grey_and_transparent_images_become_rgb(tmp_path: Path) -> None:
    Image.new("L", (3, 3), 77).save(tmp_path / "a.png")
    Image.new("RGBA", (3, 3), (1, 2, 3, 128)).save(tmp_path / "b.png")
    images = open_images(tmp_path)
    assert images.image(0).tolist() == [[[77, 77, 77]] * 3] * 3
    assert images.image(1).tolist() == [[[1, 2, 3]] * 3] * 3


def test_exif_orientation_is_ignored(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    picture(RED, (6, 4)).save(tmp_path / "turned.jpg", exif=exif)
    picture(RED, (6, 4)).save(tmp_path / "upright.jpg")
    images = open_images(tmp_path)
    assert images.image(0).shape == (4, 6, 3)
    assert [images.is_turned(0), images.is_turned(1)] == [True, False]
    assert not open_images("synthetic:1").is_turned(0)


def test_jpeg_npz(jpeg_npz: Path) -> None:
    images = open_images(jpeg_npz)
    assert len(images) == 3
    assert images.class_names == ("red", "blue")
    assert [images.label(index) for index in range(3)] == [0, 1, 0]
    assert images.image(1)[0, 0, 2] > 200


def test_array_npz(tmp_path: Path) -> None:
    values = np.arange(2 * 5 * 4 * 3, dtype=np.uint8).reshape(2, 5, 4, 3)
    np.savez(tmp_path / "arrays.npz", images=values)
    images = open_images(tmp_path / "arrays.npz")
    assert np.array_equal(images.image(1), values[1])
    assert images.label(1) is None


def test_selection_depends_on_the_seed_alone(jpeg_npz: Path, class_folder: Path) -> None:
    assert open_images(class_folder, 5, seed=1).sha256() == open_images(class_folder, 5, seed=1).sha256()
    chosen = {tuple(open_images(class_folder, 5, seed=seed)._chosen) for seed in range(5)}
    assert len(chosen) > 1
    assert all(list(indices) == sorted(set(indices)) for indices in chosen)
    assert len(open_images(jpeg_npz, limit=99)) == 3


def test_selecting_leaves_the_set_alone(class_folder: Path) -> None:
    images = open_images(class_folder)
    few = images.select(3)
    assert (len(few), len(images)) == (3, 12)


def test_picked_images_come_in_the_order_asked_for(jpeg_npz: Path) -> None:
    images = open_images(jpeg_npz)
    picked = images.pick(np.array([2, 1]))
    assert [picked.label(index) for index in range(2)] == [0, 1]
    assert (picked.image(0)[0, 0, 0] > 200, picked.image(1)[0, 0, 2] > 200) == (True, True)
    assert picked.pick(np.array([1])).label(0) == 1
    assert (len(picked), len(images), picked.class_names) == (2, 3, ("red", "blue"))


def test_digest_sees_every_image(jpeg_npz: Path) -> None:
    digests = {open_images(jpeg_npz, limit).sha256() for limit in (1, 2, 3)}
    assert len(digests) == 3


def test_synthetic_images_are_named_as_such() -> None:
    images = open_images("synthetic:3")
    assert (images.name, len(images), images.label(0)) == ("synthetic:3", 3, None)
    assert images.image(0).shape == (256, 256, 3)
    assert not np.array_equal(images.image(0), images.image(1))
    assert len(open_images("synthetic")) == 64


@pytest.mark.parametrize("count", ["0", "", "-2", "many", "1000001", "9" * 5000], ids=lambda count: count[:8] or "none")
def test_synthetic_needs_a_count(count: str) -> None:
    with pytest.raises(UserError, match=r"a count of 1 or more after the colon, at most 1000000; try synthetic:64"):
        open_images(f"synthetic:{count}")


def test_missing_source(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no images at .*nowhere; give a folder of images, an \.npz file"):
        open_images(tmp_path / "nowhere")


def test_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UserError, match=r"holds no images; allowed: \.jpg, \.jpeg, \.png"):
        open_images(tmp_path)


def test_single_file(tmp_path: Path) -> None:
    picture(RED).save(tmp_path / "one.png")
    with pytest.raises(UserError, match=r"one\.png is neither a folder nor an \.npz file"):
        open_images(tmp_path / "one.png")


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n broken"])
def test_corrupt_image_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(UserError, match=r"image .*bad\.png cannot be decoded .*remove or replace it"):
        open_images(tmp_path).image(0)


def test_truncated_jpeg_is_named(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "cut.jpg")
    content = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"cut\.jpg cannot be decoded"):
        open_images(tmp_path).image(0)


def test_npz_without_the_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", photos=np.zeros(3), names=np.zeros(3))
    with pytest.raises(UserError, match=r"x\.npz holds the arrays names, photos; expected 'images' .* or 'jpeg'"):
        open_images(tmp_path / "x.npz")


def test_npz_that_is_no_npz(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(UserError, match=r"x\.npz cannot be read as an \.npz file .*truncated"):
        open_images(tmp_path / "x.npz")
    (tmp_path / "x.npz").write_text("text")
    with pytest.raises(UserError, match=r"x\.npz cannot be read as an \.npz file \(no zip archive\)"):
        open_images(tmp_path / "x.npz")


@pytest.mark.parametrize(
    "images", [np.zeros((2, 4, 4, 3), np.float32), np.zeros((2, 4, 4), np.uint8), np.zeros((0, 4, 4, 3), np.uint8)]
)
def test_npz_images_of_the_wrong_kind(tmp_path: Path, images: np.ndarray) -> None:
    np.savez(tmp_path / "x.npz", images=images)
    with pytest.raises(UserError, match=r"array 'images' is .*expected uint8 \[N,H,W,3\]"):
        open_images(tmp_path / "x.npz")


@pytest.mark.parametrize("offsets", [[0, 5, 99], [0, 5, 3], [0], [-1, 5]])
def test_npz_offsets_outside_the_bytes(tmp_path: Path, offsets: list[int]) -> None:
    np.savez(tmp_path / "x.npz", jpeg=np.zeros(10, np.uint8), offsets=np.array(offsets))
    with pytest.raises(UserError, match=r"'offsets' does not cut 'jpeg' into images; .*within its 10 bytes"):
        open_images(tmp_path / "x.npz")


def test_npz_labels_of_another_length(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=np.zeros((2, 4, 4, 3), np.uint8), labels=np.zeros(3))
    with pytest.raises(UserError, match=r"'labels' has 3 entries for 2 images"):
        open_images(tmp_path / "x.npz")


def test_limit_below_one(jpeg_npz: Path) -> None:
    with pytest.raises(UserError, match=r"image limit is 0; allowed: 1 or more"):
        open_images(jpeg_npz, limit=0)


def npz_with_labels(tmp_path: Path, labels: object, count: int = 2) -> Path:
    path = tmp_path / "labels.npz"
    np.savez(path, images=np.zeros((count, 4, 4, 3), np.uint8), labels=np.asarray(labels))
    return path


@pytest.mark.parametrize("labels", [["a", "b"], [0.5, 1.0], [0.0, float("nan")], [1, -1]], ids=str)
def test_npz_labels_that_are_no_class_numbers(tmp_path: Path, labels: object) -> None:
    with pytest.raises(UserError, match=r"labels\.npz: array 'labels' is .* expected class numbers, integers from 0"):
        open_images(npz_with_labels(tmp_path, labels))


def test_16_bit_grey_keeps_its_upper_8_bits(tmp_path: Path) -> None:
    levels = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    for name in ("grey.png", "grey.ppm"):
        Image.fromarray(levels).save(tmp_path / name)
        image = decode_image((tmp_path / name).read_bytes(), name)
        assert np.array_equal(image, np.repeat((levels >> 8).astype(np.uint8)[:, :, None], 3, axis=2))


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pixels_of_32_bits_are_refused(tmp_path: Path, dtype: type) -> None:
    path = tmp_path / "wide.tiff"
    Image.fromarray(np.ones((4, 4), dtype)).save(path)
    with pytest.raises(UserError, match=r"wide\.tiff has 32-bit pixels; allowed are 8 and 16 bits"):
        decode_image(path.read_bytes(), str(path))


def test_an_unknown_format_is_told_in_words() -> None:
    with pytest.raises(UserError, match=r"^image x\.png cannot be decoded \(its format is none that Pillow knows\)"):
        decode_image(b"no image", "x.png")
