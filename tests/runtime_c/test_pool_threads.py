"""The pool: arguments, the same bits for every number of threads, free of data races."""

from __future__ import annotations

import ctypes
import subprocess

import numpy as np
import pytest

from edgenext_tvm.paths import RUNTIME_C

NULL, THREADS, POOL_MEMORY = -1, -14, -16


def create(library, memory, bytes_, threads):
    handle = ctypes.c_void_p()
    status = library.c.enx_pool_create(
        ctypes.c_void_p(memory.address), ctypes.c_size_t(bytes_), threads, ctypes.byref(handle)
    )
    return status, handle.value


@pytest.mark.parametrize("threads", [0, -1, 17])
def test_thread_counts_outside_the_limit_are_refused(library, tiny, threads):
    assert create(library, type(tiny.memory)(4096), 4096, threads) == (THREADS, None)
    assert library.message(THREADS) == "the number of threads is outside what this build allows"


@pytest.mark.parametrize("threads", [1, 4, 16])
def test_memory_one_byte_short_is_refused(library, tiny, threads):
    memory = type(tiny.memory)(4096)
    assert create(library, memory, 640 + 64 * threads - 1, threads) == (POOL_MEMORY, None)
    assert "too small or not aligned" in library.message(POOL_MEMORY)


def test_misaligned_and_null_memory_is_refused(library, tiny):
    assert create(library, type(tiny.memory)(4096, shift=8), 4000, 2) == (POOL_MEMORY, None)
    assert library.c.enx_pool_create(None, ctypes.c_size_t(4096), 1, ctypes.byref(ctypes.c_void_p())) == NULL
    memory = ctypes.c_void_p(tiny.memory.address)
    assert library.c.enx_pool_create(memory, ctypes.c_size_t(1024), 1, None) == NULL
    assert library.c.enx_pool_destroy(None) == NULL


def test_num_threads_counts_the_caller(library, pool):
    assert library.c.enx_pool_num_threads(None) == 1
    assert [library.c.enx_pool_num_threads(ctypes.c_void_p(pool(n))) for n in (1, 2, 16)] == [1, 2, 16]


@pytest.mark.parametrize("threads", [1, 2, 3, 4, 16])
def test_any_number_of_threads_gives_the_twins_bits(library, tiny, pool, twin, threads):
    assert library.init(tiny.context, "tiny", tiny.memory, pool=pool(threads)) == 0
    rng = np.random.default_rng(threads)
    for _ in range(30):
        x = rng.integers(-128, 128, (8, 8, 3), dtype=np.int8)
        tiny.set_input(x)
        assert tiny.run() == 0
        np.testing.assert_array_equal(tiny.logits(), twin(x))


@pytest.mark.parametrize("sanitizer", ["thread", "address,undefined"])
@pytest.mark.parametrize("spins", [1000, 0], ids=["spinning", "always-sleeping"])
def test_pools_under_stress(builds, compile_sources, sanitizer, spins):
    """Sleeping and spinning workers, 1 to 16 threads, two models at once, a pool that two callers fight for."""
    sources = [*sorted((RUNTIME_C / "src").glob("*.c"))]
    here = builds / f"pool_stress_{sanitizer[:4]}_{spins}"
    tests = RUNTIME_C.parent / "tests" / "runtime_c"
    sources += [tests / "tiny_model.c", tests / "pool_stress.c"]
    flags = [
        "-g",
        f"-fsanitize={sanitizer}",
        "-fno-sanitize-recover=all",
        f"-DENX_POOL_SPINS={spins}",
        "-pthread",
    ]
    program = compile_sources(here, sources, *flags)
    done = subprocess.run([str(program), "200"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")


def test_what_the_system_refuses_is_given_back(builds, compile_sources, request):
    """pthread_create, pthread_mutex_init and pthread_cond_init fail in turn; LeakSanitizer watches."""
    wrapped = ",".join(f"--wrap=pthread_{name}" for name in ("create", "join", "mutex_init", "cond_init"))
    sources = [*sorted((RUNTIME_C / "src").glob("*.c")), request.path.parent / "pool_refused.c"]
    flags = ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", f"-Wl,{wrapped}", "-pthread"]
    program = compile_sources(builds / "pool_refused", sources, *flags)
    done = subprocess.run([str(program)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")
