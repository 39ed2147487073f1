"""Toolchains: every kind builds real programs that run, equal bytes in any folder, clear errors."""

from __future__ import annotations

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edgenext_tvm.board import Board, load_board
from edgenext_tvm.codegen.elf_size import SectionBytes, read_size
from edgenext_tvm.codegen.toolchain import Toolchain
from edgenext_tvm.errors import UserError
from edgenext_tvm.paths import TARGETS

MAIN = """
#include <stdio.h>
#include "part.h"
int main(void) {
    printf("%d bytes, %s, %d\\n", (int)sizeof(void *), part_file(), part_answer(FACTOR));
    return 0;
}
"""
PART_H = "const char *part_file(void);\nint part_answer(int);\n"
PART = """
#include "part.h"
static const int table[64] = {6};
static volatile int counter[1000];
const char *part_file(void) { return __FILE__; }
int part_answer(int factor) { counter[factor] = factor; return table[0] * counter[factor]; }
int part_unused(int x) { return x / 3; }
"""


def write_sources(folder: Path) -> list[Path]:
    (folder / "include").mkdir(parents=True)
    (folder / "main.c").write_text(MAIN)
    (folder / "part.c").write_text(PART)
    (folder / "include" / "part.h").write_text(PART_H)
    return [folder / "main.c", folder / "part.c"]


def build(toolchain: Toolchain, folder: Path) -> dict[str, Path]:
    sources = write_sources(folder / "src")
    objects = toolchain.compile(sources, folder / "obj", [folder / "src" / "include"], ["FACTOR=7"])
    return {
        "archive": toolchain.archive(objects, folder / "lib" / "libpart.a"),
        "shared": toolchain.link_shared(objects[1:], folder / "lib" / "libpart.so"),
        "program": toolchain.link_executable(objects, folder / "bin" / "part"),
    }


def board_with(tmp_path: Path, base: str, old: str, new: str) -> Board:
    folder = tmp_path / "variant"
    shutil.copytree(TARGETS / base, folder)
    text = (folder / "board.toml").read_text().replace(f'name = "{base}"', 'name = "variant"')
    assert old in text
    (folder / "board.toml").write_text(text.replace(old, new))
    return load_board(folder)


def run(board: Board, program: Path) -> str:
    emulator = [str(board.run.qemu), "-cpu", str(board.run.qemu_cpu)] if board.run.runner == "qemu" else []
    return subprocess.run([*emulator, program], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("name", "pointer_bytes"),
    [
        ("host", 8),
        pytest.param("rpi4", 8, marks=pytest.mark.qemu),
        pytest.param("rpi2", 4, marks=pytest.mark.qemu),
    ],
)
def test_programs_run_on_their_board_and_two_folders_give_equal_bytes(
    name: str, pointer_bytes: int, tmp_path: Path
) -> None:
    board = load_board(name)
    toolchain = Toolchain.for_board(board)
    first = build(toolchain, tmp_path / "first")
    second = build(toolchain, tmp_path / "deeper" / "second")
    # __FILE__ shows that no folder of this machine gets into the bytes
    assert run(board, first["program"]) == f"{pointer_bytes} bytes, part.c, 42\n"
    for kind in first:
        assert first[kind].read_bytes() == second[kind].read_bytes(), kind
        assert str(tmp_path).encode() not in first[kind].read_bytes(), kind
    assert toolchain.size(first["archive"]).bss >= 4000


@pytest.mark.qemu
def test_a_gnu_cross_compiler_serves_as_well(tmp_path: Path) -> None:
    if shutil.which("aarch64-linux-gnu-gcc") is None:
        pytest.skip("aarch64-linux-gnu-gcc not found: install gcc-aarch64-linux-gnu")
    board = board_with(
        tmp_path,
        "rpi4",
        load_toolchain_section("rpi4"),
        'kind = "gnu"\ncc = "aarch64-linux-gnu-gcc"\n',
    )
    outputs = build(Toolchain.for_board(board), tmp_path / "build")
    assert run(board, outputs["program"]) == "8 bytes, part.c, 42\n"


def load_toolchain_section(name: str) -> str:
    text = (TARGETS / name / "board.toml").read_text()
    return text.split("[toolchain]\n")[1].split("[run]")[0]


def test_concurrent_compiles_share_the_cache(tmp_path: Path) -> None:
    toolchain = Toolchain.for_board(load_board("rpi5"))

    def compile_once(index: int) -> bytes:
        folder = tmp_path / str(index)
        sources = write_sources(folder)
        return toolchain.compile(sources[1:], folder / "obj", [folder / "include"])[0].read_bytes()

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(compile_once, range(4)))) == 1


def test_sources_of_one_name_give_separate_objects_and_archive_members(tmp_path: Path) -> None:
    for folder, value in (("a", 1), ("b", 2)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.c").write_text(f"int same_{folder}(void) {{ return {value}; }}\n")
    toolchain = Toolchain.for_board(load_board("host"))
    objects = toolchain.compile([tmp_path / "a" / "same.c", tmp_path / "b" / "same.c"], tmp_path / "obj")
    assert [path.name for path in objects] == ["same.o", "same_.o"]
    archive = toolchain.archive(objects, tmp_path / "lib.a")
    assert read_size(archive) == read_size(objects[0]) + read_size(objects[1])


def test_size_keeps_code_constants_and_variables_apart(tmp_path: Path) -> None:
    source = tmp_path / "sizes.c"
    source.write_text(
        "const char constants[1000] = {1}; char variables[300] = {1}; char zeros[5000];\n"
        "int code(int x) { return x * 3; }\n"
    )
    toolchain = Toolchain.for_board(load_board("rpi2"))
    size = toolchain.size(toolchain.compile([source], tmp_path / "obj")[0])
    assert (size.data, size.bss) == (300, 5000)
    assert 1000 <= size.rodata < 1200
    assert 0 < size.text < 100
    assert size.flash_bytes == size.text + size.rodata + size.data
    assert size + SectionBytes(1, 2, 3, 4) == SectionBytes(size.text + 1, size.rodata + 2, 303, 5004)


def test_size_of_something_else_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a program")
    with pytest.raises(UserError, match=r"notes\.txt: not a little-endian ELF file"):
        read_size(path)


def test_a_failed_compile_shows_the_command_and_the_first_error(tmp_path: Path) -> None:
    source = tmp_path / "broken.c"
    source.write_text("int broken(void) { return missing_name; }\n")
    with pytest.raises(UserError) as caught:
        Toolchain.for_board(load_board("host")).compile([source], tmp_path / "obj")
    text = str(caught.value)
    assert "command failed with status 1" in text and "-ffp-contract=off" in text
    assert "missing_name" in text and "board.toml" in text
    assert len(text.splitlines()) < 20


def test_a_compiler_that_is_not_installed_names_package_and_way_out(tmp_path: Path) -> None:
    board = board_with(tmp_path, "host", 'cc = "cc"', 'cc = "riscv64-linux-gnu-gcc-99"')
    with pytest.raises(UserError, match=r"'riscv64-linux-gnu-gcc-99' of board 'variant' not found.*kind = \"zig\""):
        Toolchain.for_board(board)


def test_a_missing_gnu_compiler_names_its_debian_package(tmp_path: Path) -> None:
    board = board_with(tmp_path, "rpi2", load_toolchain_section("rpi2"), 'kind = "gnu"\ncc = "mips-linux-gnu-gcc"\n')
    if shutil.which("mips-linux-gnu-gcc"):
        pytest.skip("this machine has the compiler that the test needs to be absent")
    with pytest.raises(UserError, match=r"Debian: gcc-mips-linux-gnu\)"):
        Toolchain.for_board(board)
