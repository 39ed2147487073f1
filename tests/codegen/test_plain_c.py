from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest
from tvm.script import tirx as T
from tvm.target import Target

from edgenext_tvm.board import load_board
from edgenext_tvm.codegen.plain_c import lower_kernel, object_bytes
from edgenext_tvm.codegen.toolchain import Toolchain
from edgenext_tvm.kernels import Dense
from edgenext_tvm.schedules.default import schedule_kernel

OUTPUT = [4]


@pytest.fixture(scope="module")
def host() -> Target:
    return load_board("host").tvm_target()


@pytest.fixture
def link(tmp_path, host):
    def build(*kernels):
        (tmp_path / "kernels.o").write_bytes(object_bytes(kernels, host))
        library = tmp_path / "kernels.so"
        subprocess.run(["cc", "-shared", str(tmp_path / "kernels.o"), "-lm", "-o", str(library)], check=True)
        return library

    return build


def test_the_parallel_loop_becomes_a_range_whose_parts_add_up(dense_func, dense_case, host, link, call_kernel):
    kernel = lower_kernel(dense_func, "enx_dense", host, OUTPUT)
    assert (kernel.extent, kernel.hoisted_bytes) == (16, ())
    assert [(p.name, p.is_const) for p in kernel.pointers] == [
        ("x", True),
        ("w", True),
        ("bias", True),
        ("mult", True),
        ("y", False),
    ]
    *inputs, expected = dense_case
    library = link(kernel)
    untouched = np.full_like(expected, 99)
    whole = call_kernel(library, "enx_dense", [*inputs, untouched], 0, 16)[-1]
    np.testing.assert_array_equal(whole, expected)
    part = call_kernel(library, "enx_dense", [*inputs, untouched], 5, 9)[-1]
    np.testing.assert_array_equal(part[5:9], expected[5:9])
    assert (part[:5] == 99).all() and (part[9:] == 99).all()


def test_a_kernel_without_parallel_loop_has_extent_one_and_an_empty_range_does_nothing(host, link, call_kernel):
    @T.prim_func(s_tir=True)
    def copy(x: T.Buffer((8,), "int8"), y: T.Buffer((8,), "int8")):
        for i in range(8):
            with T.sblock("copy"):
                vi = T.axis.remap("S", [i])
                y[vi] = x[vi]

    kernel = lower_kernel(copy, "enx_copy", host, [1])
    assert kernel.extent == 1
    library = link(kernel)
    x, y = np.arange(8, dtype=np.int8), np.full(8, 99, np.int8)
    np.testing.assert_array_equal(call_kernel(library, "enx_copy", [x, y], 0, 1)[1], x)
    np.testing.assert_array_equal(call_kernel(library, "enx_copy", [x, y], 1, 1)[1], y)


def test_two_parallel_loops_in_a_row_run_serially(host, link, call_kernel):
    @T.prim_func(s_tir=True)
    def twice(x: T.Buffer((8,), "int32"), m: T.Buffer((8,), "int32"), y: T.Buffer((8,), "int32")):
        for i in T.parallel(8):
            with T.sblock("first"):
                vi = T.axis.remap("S", [i])
                m[vi] = x[vi] * 2
        for i in T.parallel(8):
            with T.sblock("second"):
                vi = T.axis.remap("S", [i])
                y[vi] = m[7 - vi]

    kernel = lower_kernel(twice, "enx_twice", host, [1, 2])
    assert kernel.extent == 1
    x = np.arange(8, dtype=np.int32)
    y = call_kernel(link(kernel), "enx_twice", [x, x, x], 0, 1)[2]
    np.testing.assert_array_equal(y, 2 * x[::-1])


def test_merged_parameters_are_one_pointer(host, link, call_kernel):
    @T.prim_func(s_tir=True)
    def add(x: T.Buffer((64,), "int32"), r: T.Buffer((64,), "int32"), y: T.Buffer((64,), "int32")):
        for i in T.parallel(64):
            with T.sblock("add"):
                vi = T.axis.remap("S", [i])
                y[vi] = x[vi] + r[vi]

    kernel = lower_kernel(add, "enx_add", host, [2], merged={1: 2})
    assert [p.name for p in kernel.pointers] == ["x", "y"]
    assert kernel.arguments == (0, 2)
    x, r = np.arange(64, dtype=np.int32), np.arange(64, dtype=np.int32)[::-1]
    np.testing.assert_array_equal(call_kernel(link(kernel), "enx_add", [x, r], 0, 64)[1], np.full(64, 63))


def test_large_scratch_is_a_pointer_of_its_own(scratch_func, host, link, call_kernel):
    kernel = lower_kernel(scratch_func, "enx_peak", host, [1])
    assert kernel.hoisted_bytes == (8 * 1216,)
    assert kernel.arguments == (0, 1, 2)
    x = np.linspace(-1, 1, 8, dtype=np.float32)[None]
    scratch = np.full(8 * 1216, 0xFF, np.uint8)
    y = call_kernel(link(kernel), "enx_peak", [x, x, scratch], 0, 8)[1]
    spread = x[0][:, None] * np.arange(300, dtype=np.float32)
    np.testing.assert_array_equal(y[0], spread.max(axis=1))


def test_objects_need_no_symbol_of_tvm_and_are_reproducible(dense_func, scratch_func, host, tmp_path):
    kernels = [lower_kernel(dense_func, "enx_dense", host, OUTPUT), lower_kernel(scratch_func, "enx_peak", host, [1])]
    content = object_bytes(kernels, host)
    again = [lower_kernel(dense_func, "enx_dense", host, OUTPUT), lower_kernel(scratch_func, "enx_peak", host, [1])]
    assert object_bytes(again, host) == content
    path = tmp_path / "kernels.o"
    path.write_bytes(content)
    symbols = subprocess.run(["nm", str(path)], check=True, capture_output=True, text=True).stdout
    assert "T enx_dense" in symbols and "T enx_peak" in symbols
    assert "tvm" not in symbols.lower()


def test_a_scheduled_kernel_gives_its_twins_bits(host, link, call_kernel):
    description = Dense(t=24, ci=16, co=32, epilogue="residual")
    rng = np.random.default_rng(5)
    inputs = [_random(rng, shape, dtype) for shape, dtype in description.input_types()]
    inputs[3] = np.full(32, 0.01, np.float32)
    inputs[6], inputs[7] = np.array([3, 700], np.int32), np.array([2.0**-10], np.float32)
    func = schedule_kernel(description.prim_func("enx_scheduled"), "x86_64")
    kernel = lower_kernel(func, "enx_scheduled", host, [len(inputs)])
    out = np.zeros((24, 32), np.int8)
    got = call_kernel(link(kernel), "enx_scheduled", [*inputs, out], 0, kernel.extent)[-1]
    np.testing.assert_array_equal(got, description.reference(*inputs))


def _random(rng, shape, dtype):
    if dtype == "float32":
        return rng.uniform(0.001, 0.01, shape).astype(np.float32)
    low, high = (-128, 128) if dtype == "int8" else (-100, 100)
    return rng.integers(low, high, shape).astype(dtype)


MAIN = """
#include <stdint.h>
#include <stdio.h>
int32_t enx_dense(const int8_t *, const int8_t *, const int32_t *, const float *, int8_t *, int32_t, int32_t);
static struct { int8_t x[48]; } in __attribute__((aligned(64)));
static struct { int8_t w[24]; } weights __attribute__((aligned(64)));
static struct { int32_t b[8]; } bias __attribute__((aligned(64)));
static struct { float m[8]; } mult __attribute__((aligned(64)));
static struct { int8_t y[128]; } out __attribute__((aligned(64)));
int main(void)
{
    fread(&in, 1, sizeof in.x, stdin);
    fread(&weights, 1, sizeof weights.w, stdin);
    fread(&bias, 1, sizeof bias.b, stdin);
    fread(&mult, 1, sizeof mult.m, stdin);
    enx_dense(in.x, weights.w, bias.b, mult.m, out.y, 0, 7);
    enx_dense(in.x, weights.w, bias.b, mult.m, out.y, 7, 16);
    fwrite(out.y, 1, sizeof out.y, stdout);
    return 0;
}
"""


@pytest.mark.qemu
@pytest.mark.parametrize("name", ["rpi4", "rpi2"])
def test_arm_objects_give_the_same_bits(name, dense_func, dense_case, tmp_path):
    board = load_board(name)
    kernel = lower_kernel(dense_func, "enx_dense", board.tvm_target(), OUTPUT)
    (tmp_path / "kernels.o").write_bytes(object_bytes([kernel], board.tvm_target()))
    (tmp_path / "main.c").write_text(MAIN)
    toolchain = Toolchain.for_board(board)
    objects = toolchain.compile([tmp_path / "main.c"], tmp_path / "objects")
    program = toolchain.link_executable([*objects, tmp_path / "kernels.o"], tmp_path / "program")
    *inputs, expected = dense_case
    qemu = shutil.which(board.run.qemu)
    done = subprocess.run(
        [qemu, "-cpu", board.run.qemu_cpu, str(program)],
        input=b"".join(a.tobytes() for a in inputs),
        capture_output=True,
        check=True,
    )
    np.testing.assert_array_equal(np.frombuffer(done.stdout, np.int8).reshape(16, 8), expected)
