"""Function symbols of programs that the project's compiler links."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from edgenext_tvm.board import load_board
from edgenext_tvm.codegen.toolchain import Toolchain
from edgenext_tvm.errors import UserError
from edgenext_tvm.tune.emulator.elf_functions import UNNAMED, ElfFunctions, read_functions


@pytest.mark.parametrize("board", ["rpi4", "rpi2"])
def test_functions_of_a_linked_program_do_not_overlap(board: str, tmp_path: Path) -> None:
    source, program = tmp_path / "main.c", tmp_path / "main"
    source.write_text("int twice(int x) { return 2 * x; }\nint main(int argc, char **argv) { return twice(argc); }\n")
    toolchain = Toolchain.for_board(load_board(board))
    command = [*toolchain.static_linker, "-static", str(source), "-o", str(program)]
    subprocess.run(command, env={**os.environ, **toolchain.environment}, check=True)
    functions = read_functions(program)
    assert {"main", "twice"} <= set(functions.names)
    assert list(functions.starts) == sorted(functions.starts)
    assert functions.at(functions.starts[functions.names.index("twice")]) == "twice"
    assert functions.at(functions.starts[0] - 1) == UNNAMED


def test_a_stripped_library_still_names_what_it_exports(tmp_path: Path) -> None:
    source, library = tmp_path / "twice.c", tmp_path / "libtwice.so"
    source.write_text("static int one(void) { return 1; }\nint twice(int x) { return 2 * x + one(); }\n")
    toolchain = Toolchain.for_board(load_board("rpi4"))
    command = [*toolchain.shared_linker, "-shared", "-s", str(source), "-o", str(library)]
    subprocess.run(command, env={**os.environ, **toolchain.environment}, check=True)
    functions = read_functions(library)
    assert "twice" in functions.names
    assert "one" not in functions.names


def test_an_address_between_functions_has_no_name() -> None:
    functions = ElfFunctions(100, (100, 200), (140, 204), ("a", "b"))
    assert [functions.at(address) for address in (99, 100, 139, 140, 200, 203, 204)] == [
        UNNAMED, "a", "a", UNNAMED, "b", "b", UNNAMED,
    ]  # fmt: skip


def test_a_file_that_is_no_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("hello")
    with pytest.raises(UserError, match="text: not a little-endian ELF file"):
        read_functions(path)
