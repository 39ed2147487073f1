"""enx_run and enx_run_profiled: the step loop, its callback and its errors."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

NULL, NOT_INITIALIZED, STEP, BUSY = -1, -6, -7, -17
PROFILE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_int)
ref = ctypes.byref


@pytest.fixture
def x():
    return np.random.default_rng(3).integers(-128, 128, (8, 8, 3), dtype=np.int8)


def test_the_logits_are_the_twins(tiny, x, twin):
    tiny.set_input(x)
    assert tiny.run() == 0
    np.testing.assert_array_equal(tiny.logits(), twin(x))
    assert tiny.memory.guard_is_intact


def test_run_may_overwrite_the_input_so_it_is_set_again(tiny, x, twin):
    for scale in (1, -1, 0):
        tiny.set_input(x // 2 * scale)
        assert tiny.run() == 0
        np.testing.assert_array_equal(tiny.logits(), twin(x // 2 * scale))


def test_the_callback_sees_every_step_begin_and_end(library, tiny, x, twin):
    seen = []
    callback = PROFILE(lambda user, index, step, phase: seen.append((user, index, phase)))
    tiny.set_input(x)
    assert library.c.enx_run_profiled(ref(tiny.context), callback, ctypes.c_void_p(42)) == 0
    assert seen == [(42, 0, 0), (42, 0, 1), (42, 1, 0), (42, 1, 1)]
    np.testing.assert_array_equal(tiny.logits(), twin(x))


def test_null_and_uninitialised_contexts(library, tiny):
    assert library.c.enx_run(None) == NULL
    assert library.c.enx_run(ref(type(tiny.context)())) == NOT_INITIALIZED


@pytest.mark.parametrize("threads", [None, 1, 3])
def test_a_failing_range_stops_the_run_and_is_named(library, tiny, pool, threads):
    context, memory = type(tiny.context)(), type(tiny.memory)(1024)
    handle = None if threads is None else pool(threads)
    assert library.init(context, "failing", memory, pool=handle) == 0
    assert library.c.enx_run(ref(context)) == STEP
    assert context.failed_step == 1
    assert library.message(STEP) == "a step of the network reported a failure"
    assert library.init(context, "tiny", memory, pool=handle) == 0
    assert library.c.enx_run(ref(context)) == 0, "the pool works on after a failure"


@pytest.mark.parametrize("threads", [1, 2])
def test_a_pool_that_is_running_is_busy(library, tiny, pool, threads):
    handle = pool(threads)
    other, memory = type(tiny.context)(), type(tiny.memory)(1024)
    assert library.init(tiny.context, "tiny", tiny.memory, pool=handle) == 0
    assert library.init(other, "tiny", memory, pool=handle) == 0
    statuses = set()

    def run_inside(user, index, step, phase):
        statuses.add(library.c.enx_run(ref(other)))
        statuses.add(library.c.enx_pool_destroy(ctypes.c_void_p(handle)))

    assert library.c.enx_run_profiled(ref(tiny.context), PROFILE(run_inside), None) == 0
    assert statuses == {BUSY}
    assert library.message(BUSY) == "the pool is serving another context"
    assert library.c.enx_run(ref(other)) == 0
