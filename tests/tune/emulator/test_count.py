"""Counted instructions are exact: loops of known length, and inferences of a real build."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from edgenext_tvm.board import load_board
from edgenext_tvm.codegen.toolchain import Toolchain
from edgenext_tvm.errors import UserError
from edgenext_tvm.tune.emulator import count_inference, count_program
from edgenext_tvm.verify.runner import QemuRunner

pytestmark = pytest.mark.qemu

# subs and b.ne are two instructions an iteration, on A64 and A32 alike
PROGRAM = r"""
#include <stdlib.h>
__attribute__((noinline)) void spin(long n)
{
    __asm__ volatile("1: subs %0, %0, #1\n bne 1b" : "+r"(n) : : "cc");
}
__attribute__((noinline)) void once(void) { __asm__ volatile("nop"); }
int main(int argc, char **argv)
{
    if (argc != 2) return 3;
    once();
    spin(strtol(argv[1], NULL, 10));
    return 0;
}
"""


def build(board: str, folder: Path, *flags: str) -> Path:
    source = folder / "spin.c"
    source.write_text(PROGRAM)
    toolchain = Toolchain.for_board(load_board(board))
    program = folder / f"spin{len(flags)}"
    command = [*toolchain.static_linker, "-O1", "-static", *flags, str(source), "-o", str(program)]
    subprocess.run(command, env={**os.environ, **toolchain.environment}, check=True)
    return program


@pytest.mark.parametrize("board", ["rpi4", "rpi2"])
def test_each_iteration_is_counted_in_its_function(board: str, tmp_path: Path) -> None:
    runner = QemuRunner.for_board(load_board(board))
    program = build(board, tmp_path)
    difference = count_program(runner, program, ["1101"]) - count_program(runner, program, ["1001"])
    assert difference.by_function == {"spin": 200}
    assert difference.total == 200


def test_counts_add_up_and_repeat(tmp_path: Path) -> None:
    runner = QemuRunner.for_board(load_board("rpi4"))
    program = build("rpi4", tmp_path)
    counts = count_program(runner, program, ["5"])
    assert counts == count_program(runner, program, ["5"])
    assert sum(counts.by_function.values()) == counts.total
    assert {"main", "once", "spin"} <= set(counts.by_function)


def test_a_stripped_program_is_refused(tmp_path: Path) -> None:
    runner = QemuRunner.for_board(load_board("rpi4"))
    with pytest.raises(UserError, match="no symbol table, so instructions cannot be counted by function; link it"):
        count_program(runner, build("rpi4", tmp_path, "-s"), ["5"])


def test_a_failing_program_is_told_with_its_status(tmp_path: Path) -> None:
    runner = QemuRunner.for_board(load_board("rpi4"))
    with pytest.raises(UserError, match=r"^spin0 on qemu-aarch64 cortex-a72 ended with status 3: \(no output\)$"):
        count_program(runner, build("rpi4", tmp_path), [])


def test_a_missing_emulator_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot start qemu-nowhere: No such file or directory; install it"):
        count_program(QemuRunner("qemu-nowhere", "max"), build("rpi4", tmp_path), ["1"])


def test_an_inference_of_a_build_is_counted_by_kernel(rpi4_build: Path) -> None:
    counts = count_inference(rpi4_build)
    kernels = {name: count for name, count in counts.by_function.items() if name.startswith("enx_edgenext_xx_small_")}
    assert {"enx_edgenext_xx_small_conv2d_0", "enx_edgenext_xx_small_dense_0"} <= set(kernels)
    assert sum(kernels.values()) > 0.95 * counts.total
    assert "main" in counts.by_function
    assert "_start" not in counts.by_function


def test_a_build_for_the_host_has_no_emulator(host_build: Path) -> None:
    with pytest.raises(UserError, match="board 'host' names no emulator"):
        count_inference(host_build)
