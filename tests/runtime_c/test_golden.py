"""enx_golden.h: the streams, the CRC and the comparison."""

from __future__ import annotations

import ctypes
import zlib

import numpy as np
import pytest

NULL, NOT_INITIALIZED, CAPACITY, GOLDEN = -1, -6, -13, -18
RANDOM, CONSTANT, GRADIENT, IMAGE = range(4)
ref = ctypes.byref


class Vector(ctypes.Structure):
    _fields_ = [
        ("kind", ctypes.c_int), ("seed", ctypes.c_uint32), ("value", ctypes.c_int32),
        ("expected_logits", ctypes.POINTER(ctypes.c_float)), ("width", ctypes.c_int32), ("height", ctypes.c_int32),
        ("expected_crc32", ctypes.c_uint32), ("tolerance", ctypes.c_float),
    ]  # fmt: skip


class Outcome(ctypes.Structure):
    _fields_ = [
        ("passed", ctypes.c_int32), ("class_index", ctypes.c_int32), ("got", ctypes.c_float),
        ("expected", ctypes.c_float), ("got_crc32", ctypes.c_uint32),
    ]  # fmt: skip


def vector(kind, seed=0, value=0, logits=None, **fields):
    pointer = None if logits is None else (ctypes.c_float * 4)(*map(float, logits))
    return Vector(kind=kind, seed=seed, value=value, expected_logits=pointer, **fields)


@pytest.fixture
def check(library, tiny):
    def run(v, pixel_bytes=0):
        outcome, pixels = Outcome(), (ctypes.c_uint8 * pixel_bytes)() if pixel_bytes else None
        size = ctypes.c_size_t(pixel_bytes)
        return library.c.enx_golden_check(ref(tiny.context), ref(v), pixels, size, ref(outcome)), outcome

    return run


def expected_input(kind, seed, value, xorshift):
    i = np.arange(192, dtype=np.uint32)
    if kind == RANDOM:
        return xorshift(seed, 192).view(np.int8)
    if kind == GRADIENT:
        return (((i * np.uint32(seed)) >> 7) & 255).astype(np.uint8).view(np.int8)
    return np.full(192, value, np.int8)


VECTORS = [(RANDOM, 1, 0), (RANDOM, 0xDEADBEEF, 0), (CONSTANT, 0, -128), (CONSTANT, 0, 127), (GRADIENT, 77777, 0),
           (GRADIENT, 0xFFFFFFFF, 0)]  # fmt: skip


@pytest.mark.parametrize(("kind", "seed", "value"), VECTORS)
def test_inputs_are_the_documented_streams(library, tiny, xorshift, kind, seed, value):
    assert library.c.enx_golden_fill_input(ref(tiny.context), ref(vector(kind, seed, value))) == 0
    np.testing.assert_array_equal(tiny.input().reshape(-1), expected_input(kind, seed, value, xorshift))


def test_a_float_models_elements_are_64ths(library, tiny, xorshift):
    context, memory = type(tiny.context)(), type(tiny.memory)(1024)
    assert library.init(context, "tiny_f32", memory) == 0
    assert library.c.enx_golden_fill_input(ref(context), ref(vector(RANDOM, 5))) == 0
    expected = xorshift(5, 192).view(np.int8).astype(np.float32) / np.float32(64)
    np.testing.assert_array_equal(memory.array[:768].view(np.float32), expected)


@pytest.mark.parametrize(
    "v", [vector(RANDOM, 0), vector(CONSTANT, 0, 128), vector(CONSTANT, 0, -129), vector(9, 1)]
)
def test_malformed_vectors_are_refused(library, tiny, check, v):
    assert library.c.enx_golden_fill_input(ref(tiny.context), ref(v)) == GOLDEN
    v.expected_logits = (ctypes.c_float * 4)()
    assert check(v)[0] == GOLDEN
    assert library.message(GOLDEN) == "the golden vector is malformed"


def test_a_vector_without_logits_is_refused_unless_an_image(check):
    assert check(vector(RANDOM, 1))[0] == GOLDEN


@pytest.mark.parametrize(("kind", "seed", "value"), VECTORS)
def test_the_twins_logits_pass_and_others_fail(check, xorshift, twin, kind, seed, value):
    logits = twin(expected_input(kind, seed, value, xorshift))
    status, outcome = check(vector(kind, seed, value, logits))
    assert (status, outcome.passed, outcome.class_index) == (0, 1, -1)
    wrong = logits.copy()
    wrong[2] = np.nextafter(wrong[2], np.float32(1e9))
    status, outcome = check(vector(kind, seed, value, wrong))
    assert (status, outcome.passed, outcome.class_index) == (0, 0, 2)
    assert (outcome.got, outcome.expected) == (logits[2], wrong[2])


def test_a_tolerance_allows_differences_up_to_it(check, xorshift, twin):
    logits = twin(expected_input(RANDOM, 1, 0, xorshift))
    assert check(vector(RANDOM, 1, 0, logits + 0.125, tolerance=0.125))[1].passed == 1
    assert check(vector(RANDOM, 1, 0, logits + 0.25, tolerance=0.125))[1].passed == 0
    assert check(vector(RANDOM, 1, 0, logits * np.nan, tolerance=0.125))[1].passed == 0


def test_an_image_is_compared_by_the_crc_of_the_input(library, check, xorshift, pillow, tables):
    pixels = xorshift(9, 31 * 23 * 3).reshape(23, 31, 3)
    crc = zlib.crc32(tables(pillow(pixels, 10, 8)).tobytes())
    v = vector(IMAGE, 9, width=31, height=23, expected_crc32=crc)
    assert library.c.enx_golden_pixel_bytes(ref(v)) == 31 * 23 * 3
    status, outcome = check(v, 31 * 23 * 3)
    assert (status, outcome.passed, outcome.got_crc32) == (0, 1, crc)
    v.expected_crc32 ^= 1
    assert check(v, 31 * 23 * 3)[1].passed == 0
    assert check(v, 31 * 23 * 3 - 1)[0] == CAPACITY
    assert check(v)[0] == NULL


def test_null_and_uninitialised(library, tiny):
    assert library.c.enx_golden_fill_input(None, ref(vector(RANDOM, 1))) == NULL
    assert library.c.enx_golden_fill_input(ref(tiny.context), None) == NULL
    assert (
        library.c.enx_golden_fill_input(ref(type(tiny.context)()), ref(vector(RANDOM, 1))) == NOT_INITIALIZED
    )
    assert library.c.enx_golden_pixel_bytes(None) == 0
