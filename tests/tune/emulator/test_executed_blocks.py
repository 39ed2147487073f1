"""What the plugin writes becomes the code that ran between marks."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from edgenext_tvm.board import load_board
from edgenext_tvm.codegen.toolchain import Toolchain
from edgenext_tvm.errors import UserError
from edgenext_tvm.tune.emulator.count import run_counted
from edgenext_tvm.tune.emulator.executed_blocks import ExecutedBlock, ProgramCode, split_at_marks
from edgenext_tvm.verify.runner import QemuRunner

pytestmark = pytest.mark.qemu

# argv[1] times two instructions between the first and the second mark, argv[2] times between the second and the third
PROGRAM = r"""
#include <stdlib.h>
__attribute__((noinline)) void mark(void) { __asm__ volatile("" : : : "memory"); }
__attribute__((noinline)) void spin(long n)
{
    __asm__ volatile("1: subs %0, %0, #1\n bne 1b" : "+r"(n) : : "cc");
}
int main(int argc, char **argv)
{
    long first = strtol(argv[1], NULL, 10), second = strtol(argv[2], NULL, 10);
    mark();
    spin(first);
    mark();
    spin(second);
    mark();
    return argc - 3;
}
"""


@pytest.fixture(params=["rpi4", "rpi2"])
def board(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def program(board: str, tmp_path: Path) -> Path:
    source, program = tmp_path / "main.c", tmp_path / "main"
    source.write_text(PROGRAM)
    toolchain = Toolchain.for_board(load_board(board))
    command = [*toolchain.static_linker, "-O1", "-static", str(source), "-o", str(program)]
    subprocess.run(command, env={**os.environ, **toolchain.environment}, check=True)
    return program


def instructions(blocks: list[ExecutedBlock]) -> int:
    return sum(block.instructions * block.executions for block in blocks)


def test_each_segment_holds_what_ran_between_its_marks(board: str, program: Path) -> None:
    runner = QemuRunner.for_board(load_board(board))
    code = ProgramCode(program)

    def between(first: int, second: int) -> tuple[int, int]:
        ran = run_counted(runner, program, [str(first), str(second)], "mark")
        assert ran.status == 0
        _, one, two, _ = split_at_marks(ran.blocks, code)
        return instructions(one), instructions(two)

    one, two = between(1000, 2000)
    assert between(1100, 2000) == (one + 200, two)
    assert between(1000, 2001) == (one, two + 2)


def test_blocks_hold_the_machine_code_that_ran(board: str, program: Path) -> None:
    ran = run_counted(QemuRunner.for_board(load_board(board)), program, ["500", "1"], "mark")
    _, spinning, *_ = split_at_marks(ran.blocks, ProgramCode(program))
    loop = max(spinning, key=lambda block: block.executions)
    assert loop.executions in (499, 500)
    # subs xN, xN, #1 then b.ne to it, on A64; the same in A32
    first, second = (int.from_bytes(loop.code[at : at + 4], "little") for at in (0, 4))
    if board == "rpi4":
        assert first & 0xFFFFFC00 == 0xF1000400
        assert second == 0x54FFFFE1
    else:
        assert first & 0xFFF00FFF == 0xE2500001
        assert second == 0x1AFFFFFD


def test_a_function_to_mark_must_be_there(board: str, program: Path) -> None:
    with pytest.raises(UserError, match="main has no function 'nowhere' to count between"):
        run_counted(QemuRunner.for_board(load_board(board)), program, ["1", "1"], "nowhere")
