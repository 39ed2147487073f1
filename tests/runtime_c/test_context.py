"""enx_init, enx_input, enx_output, enx_output_copy: what they accept and how they refuse."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

NULL, ABI, MODEL, ARENA_SMALL, ARENA_ALIGN, NOT_INITIALIZED, CAPACITY = -1, -2, -3, -4, -5, -6, -13
ref = ctypes.byref


@pytest.fixture
def blank(tiny):
    """A zeroed context and memory that fits."""
    return type(tiny.context)(), type(tiny.memory)(1024)


def test_an_arena_of_the_exact_size_is_enough(library, blank):
    context, memory = blank
    assert library.init(context, "tiny", memory, 512) == 0
    assert (context.arena, context.arena_bytes, context.pool) == (memory.address, 512, None)


def test_one_byte_short_is_too_small_and_leaves_the_context_alone(library, blank):
    context, memory = blank
    assert library.init(context, "tiny", memory, 511) == ARENA_SMALL
    assert context.model is None
    assert library.message(ARENA_SMALL) == "the arena is smaller than model->arena_bytes"


@pytest.mark.parametrize("shift", [1, 8, 32])
def test_a_misaligned_arena_is_refused(library, tiny, shift):
    memory = type(tiny.memory)(1024, shift)
    assert library.init(type(tiny.context)(), "tiny", memory) == ARENA_ALIGN
    assert library.message(ARENA_ALIGN) == "the arena is not aligned to model->arena_align"


def test_null_arguments(library, blank):
    context, memory = blank
    init, arena, size = library.c.enx_init, ctypes.c_void_p(memory.address), ctypes.c_size_t(1024)
    assert init(None, library.model("tiny"), arena, size, None) == NULL
    assert init(ref(context), None, arena, size, None) == NULL
    assert init(ref(context), library.model("tiny"), None, size, None) == NULL


def edited(library, offset: int, value: int, kind=ctypes.c_uint32):
    """A copy of `tiny` with one field changed; offsets are those of enx_model_t on a 64-bit target."""
    copy = ctypes.create_string_buffer(ctypes.string_at(library.model("tiny"), 192), 192)
    kind.from_buffer(copy, offset).value = value
    return copy


def test_another_interface_version_is_refused(library, blank):
    context, memory = blank
    model = edited(library, 0, 2)
    arguments = (ctypes.c_void_p(memory.address), ctypes.c_size_t(1024), None)
    assert library.c.enx_init(ref(context), model, *arguments) == ABI
    assert "compile it again" in library.message(ABI)


@pytest.mark.parametrize(
    ("what", "offset", "value"),
    [
        ("an alignment that is no power of two", 20, 48),
        ("an alignment below 8", 20, 4),
        ("an unknown dtype", 24, 9),
        ("rank 0", 28, 0),
        ("an empty dimension", 36, 0),
        ("a dimension beyond the arena", 36, 2**30),
        ("bytes that do not follow from the shape", 60, 191),
        ("an input beyond the arena", 56, 512 - 191),
        ("no step", 112, 0),
        ("a crop that is not the input's side", 140, 7),
        ("a resize smaller than the crop", 136, 7),
        ("a number of classes that is not the output's", 152, 5),
    ],
)
def test_a_model_that_contradicts_itself_is_refused(library, blank, what, offset, value):
    context, memory = blank
    arguments = (ctypes.c_void_p(memory.address), ctypes.c_size_t(1024), None)
    assert library.c.enx_init(ref(context), edited(library, offset, value), *arguments) == MODEL, what
    assert library.message(MODEL) == "the model descriptor contradicts itself"


def test_the_unedited_copy_is_accepted(library, blank):
    context, memory = blank
    arguments = (ctypes.c_void_p(memory.address), ctypes.c_size_t(1024), None)
    assert library.c.enx_init(ref(context), edited(library, 0, 1), *arguments) == 0


def test_input_and_output_point_into_the_arena(library, tiny):
    assert library.c.enx_input(ref(tiny.context)) == tiny.memory.address + 64
    assert library.c.enx_output(ref(tiny.context)) == tiny.memory.address + 448


def test_an_uninitialised_context_has_no_tensors(library, blank):
    context, _ = blank
    logits = (ctypes.c_float * 4)()
    assert library.c.enx_input(ref(context)) is None and library.c.enx_input(None) is None
    assert library.c.enx_output(ref(context)) is None and library.c.enx_output(None) is None
    assert library.c.enx_output_copy(ref(context), logits, 4) == NOT_INITIALIZED
    assert library.message(NOT_INITIALIZED) == "the context was not initialised by enx_init"


def test_output_copy_refuses_null_and_small_buffers(library, tiny):
    logits = (ctypes.c_float * 4)(9, 9, 9, 9)
    copy = library.c.enx_output_copy
    assert copy(None, logits, 4) == NULL and copy(ref(tiny.context), None, 4) == NULL
    assert copy(ref(tiny.context), logits, 3) == CAPACITY
    assert list(logits) == [9, 9, 9, 9]
    assert library.message(CAPACITY) == "the caller's buffer is too small"


def test_an_int8_output_is_copied_in_real_units(library, blank):
    context, memory = blank
    assert library.init(context, "tiny_f32", memory) == 0
    memory.array[:768].view(np.float32)[:] = np.linspace(-3, 3, 192, dtype=np.float32)
    assert library.c.enx_run(ref(context)) == 0
    logits = (ctypes.c_float * 4)()
    assert library.c.enx_output(ref(context)) is None
    assert library.c.enx_output_copy(ref(context), logits, 4) == 0
    hidden = np.trunc(np.linspace(-3, 3, 192, dtype=np.float32)[:4] * 32)
    np.testing.assert_array_equal(np.array(logits), 0.5 * (hidden - 3))
