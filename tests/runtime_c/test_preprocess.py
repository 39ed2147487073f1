"""enx_preprocess_rgb8 against Pillow: the same bytes when rows go first, one level apart at most otherwise."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from PIL import Image

NULL, NOT_INITIALIZED, SIZE, STRIDE, CHANNELS, SCRATCH, UNSUPPORTED = -1, -6, -8, -9, -10, -11, -12
ref = ctypes.byref


@pytest.fixture
def scratch_bytes(library):
    def ask(width, height, resize, crop):
        needed = ctypes.c_uint32()
        assert library.c.probe_scratch_bytes(resize, crop, width, height, ref(needed)) == 0
        return needed.value

    return ask


@pytest.fixture
def preprocess(library, tiny, scratch_bytes):
    """preprocess(pixels u8 [H,W,C], resize, crop) -> u8 [crop,crop,3], in an arena of exactly the size needed."""

    def run(pixels, resize, crop, *, scratch=None, before=True, padding=0):
        height, width, channels = pixels.shape
        padded = np.zeros((height, width * channels + padding), np.uint8)
        padded[:, : width * channels] = pixels.reshape(height, -1)
        scratch = scratch_bytes(width, height, resize, crop) if scratch is None else scratch
        input_bytes = 3 * crop * crop
        offset = scratch if before else 0
        gap = -input_bytes % 8
        memory = type(tiny.memory)(input_bytes + scratch + (0 if before else gap))
        out = np.zeros((crop, crop, 3), np.uint8)
        status = library.c.probe_preprocess(
            ctypes.c_void_p(padded.ctypes.data), width, height, ctypes.c_size_t(padded.shape[1]), channels,
            resize, crop, ctypes.c_void_p(memory.address), ctypes.c_size_t(memory.array.size), offset,
            ctypes.c_void_p(out.ctypes.data),
        )  # fmt: skip
        assert memory.guard_is_intact
        return out if status == 0 else status

    return run


def image(width, height, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


SIZES = [
    (1, 1, 8, 8), (1, 7, 8, 8), (7, 1, 8, 8), (1, 300, 8, 8), (300, 1, 8, 7), (33, 65, 32, 32), (65, 33, 32, 31),
    (3000, 2000, 256, 256), (2000, 3000, 292, 256), (500, 333, 292, 256), (256, 256, 256, 256), (64, 48, 256, 224),
    (257, 255, 256, 255), (255, 257, 256, 256), (2000, 11, 32, 32), (11, 2000, 32, 31), (999, 999, 1, 1),
    (16384, 3, 4, 4), (3, 16384, 4, 3), (640, 480, 232, 224), (1, 1, 1, 1), (2, 3, 5, 4),
]  # fmt: skip


@pytest.mark.parametrize(("width", "height", "resize", "crop"), SIZES)
def test_the_same_bytes_as_pillow(preprocess, pillow, width, height, resize, crop):
    pixels = image(width, height)
    np.testing.assert_array_equal(preprocess(pixels, resize, crop), pillow(pixels, resize, crop))


def test_random_sizes_give_the_same_bytes_as_pillow(preprocess, pillow):
    rng = np.random.default_rng(1)
    for i in range(200):
        width, height, resize = (int(v) for v in rng.integers(1, 200, 3))
        crop = int(rng.integers(1, resize + 1))
        if resize * max(width, height) // min(width, height) > 8000:
            continue
        pixels = image(width, height, seed=i)
        got, expected = preprocess(pixels, resize, crop), pillow(pixels, resize, crop)
        np.testing.assert_array_equal(got, expected, err_msg=f"{width}x{height} -> {resize}, {crop}")


@pytest.mark.parametrize(("width", "height"), [(640, 480), (200, 900), (31, 30), (60, 400)])
def test_one_call_of_pillow_is_at_most_one_level_apart(preprocess, width, height):
    """Pillow resamples columns first for some tall images."""
    pixels, size = image(width, height), 48
    short, long = min(width, height), max(width, height)
    out = (size, size * long // short) if width < height else (size * long // short, size)
    resized = np.asarray(Image.fromarray(pixels).resize(out, Image.Resampling.BILINEAR)).astype(int)
    top, left = round((out[1] - size) / 2), round((out[0] - size) / 2)
    got = preprocess(pixels, size, size).astype(int)
    assert np.abs(got - resized[top : top + size, left : left + size]).max() <= 1


@pytest.mark.parametrize("level", [0, 1, 128, 254, 255])
def test_a_flat_image_stays_flat(preprocess, level):
    for width, height in [(1, 1), (500, 301), (17, 400), (5, 5)]:
        assert (preprocess(np.full((height, width, 3), level, np.uint8), 32, 32) == level).all()


def test_grey_and_four_channels(preprocess):
    grey = image(50, 41, 1)
    np.testing.assert_array_equal(preprocess(grey, 32, 32), preprocess(np.repeat(grey, 3, axis=2), 32, 32))
    rgbx = image(50, 41, 4)
    np.testing.assert_array_equal(preprocess(rgbx, 32, 32), preprocess(rgbx[..., :3], 32, 32))


def test_padding_between_rows_is_skipped(preprocess):
    pixels = image(50, 41)
    np.testing.assert_array_equal(preprocess(pixels, 32, 30, padding=13), preprocess(pixels, 32, 30))


@pytest.mark.parametrize("before", [True, False], ids=["scratch-before-input", "scratch-after-input"])
@pytest.mark.parametrize(("width", "height"), [(100, 75), (9, 9)], ids=["shrink", "enlarge"])
def test_the_stated_scratch_is_enough_and_one_byte_less_is_refused(
    preprocess, pillow, scratch_bytes, library, width, height, before
):
    pixels, needed = image(width, height), scratch_bytes(width, height, 20, 16)
    np.testing.assert_array_equal(preprocess(pixels, 20, 16, before=before), pillow(pixels, 20, 16))
    assert preprocess(pixels, 20, 16, scratch=needed - 1, before=before) == SCRATCH
    assert "see enx_preprocess_scratch_bytes" in library.message(SCRATCH)


def test_scratch_stays_below_the_headers_figures(scratch_bytes):
    assert scratch_bytes(16384, 16384, 256, 256) <= 141 * 1024
    assert scratch_bytes(2048, 2048, 256, 256) <= 26 * 1024
    assert scratch_bytes(512, 512, 256, 256) <= 15 * 1024
    for width, height, resize, crop in [
        (16384, 16384, 256, 224),
        (16384, 1, 64, 64),
        (1, 16384, 8, 8),
        (640, 480, 9, 9),
    ]:
        out = resize if width <= height else resize * width // height
        taps = -(-2 * max(width, out) // out) + 1
        assert scratch_bytes(width, height, resize, crop) <= 35 * crop + 8 + 4 * crop * taps


@pytest.mark.parametrize(("width", "height"), [(0, 5), (5, 0), (-1, 5), (16385, 5), (5, 16385)])
def test_sizes_outside_the_limit_are_refused(library, tiny, width, height):
    pixels, needed = (ctypes.c_uint8 * 16)(), ctypes.c_uint32()
    stride = ctypes.c_size_t(100000)
    assert library.c.enx_preprocess_rgb8(ref(tiny.context), pixels, width, height, stride, 3) == SIZE
    assert library.c.enx_preprocess_scratch_bytes(library.model("tiny"), width, height, ref(needed)) == SIZE
    assert library.message(SIZE) == "the image's width or height is outside 1..16384 pixels"


def test_other_arguments_are_checked_and_the_input_is_left_alone(library, tiny):
    before, pixels = tiny.memory.array.copy(), (ctypes.c_uint8 * 64)()
    call, context, blank = library.c.enx_preprocess_rgb8, ref(tiny.context), ref(type(tiny.context)())
    stride = ctypes.c_size_t(12)
    assert call(None, pixels, 4, 4, stride, 3) == NULL and call(context, None, 4, 4, stride, 3) == NULL
    assert call(blank, pixels, 4, 4, stride, 3) == NOT_INITIALIZED
    assert call(context, pixels, 4, 4, ctypes.c_size_t(11), 3) == STRIDE
    assert [call(context, pixels, 4, 4, stride, c) for c in (0, 2, 5, -3)] == [CHANNELS] * 4
    assert (tiny.memory.array == before).all()
    assert "stride" in library.message(STRIDE) and "1, 3 or 4 channels" in library.message(CHANNELS)


def test_a_model_without_tables_has_no_preprocessing(library, tiny):
    assert library.init(tiny.context, "failing", tiny.memory) == 0
    pixels, needed = (ctypes.c_uint8 * 3)(), ctypes.c_uint32()
    assert (
        library.c.enx_preprocess_rgb8(ref(tiny.context), pixels, 1, 1, ctypes.c_size_t(3), 3) == UNSUPPORTED
    )
    assert library.c.enx_preprocess_scratch_bytes(library.model("failing"), 1, 1, ref(needed)) == UNSUPPORTED
    assert library.message(UNSUPPORTED) == "the model carries no image preprocessing"


def test_levels_go_through_the_tables_of_each_channel(library, tiny, pillow, tables):
    pixels = image(40, 30)
    stride = ctypes.c_size_t(120)
    assert (
        library.c.enx_preprocess_rgb8(
            ref(tiny.context), ctypes.c_void_p(pixels.ctypes.data), 40, 30, stride, 3
        )
        == 0
    )
    np.testing.assert_array_equal(tiny.input(), tables(pillow(pixels, 10, 8)))


def test_a_float_model_gets_float_levels(library, tiny, pillow):
    context, memory = type(tiny.context)(), type(tiny.memory)(4096)
    assert library.init(context, "tiny_f32", memory) == 0
    pixels = image(40, 30)
    stride = ctypes.c_size_t(120)
    assert (
        library.c.enx_preprocess_rgb8(ref(context), ctypes.c_void_p(pixels.ctypes.data), 40, 30, stride, 3)
        == 0
    )
    expected = pillow(pixels, 8, 8).astype(np.float32) * np.float32(0.0078125) - np.float32(1)
    np.testing.assert_array_equal(memory.array[:768].view(np.float32).reshape(8, 8, 3), expected)
