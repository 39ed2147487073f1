"""Boards: what the bundled ones promise, how a user adds one, and what each mistake is told."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from edgenext_tvm import native
from edgenext_tvm.board import TARGETS_ENV, board_files, load_board
from edgenext_tvm.errors import UserError
from edgenext_tvm.paths import TARGETS

BUNDLED = ["cortex-a55", "host", "host-avx2", "rpi2", "rpi3", "rpi4", "rpi5"]


@pytest.fixture
def own_board(tmp_path: Path) -> Path:
    """A user's copy of the Raspberry Pi 4 folder, renamed as the loader asks for."""
    folder = tmp_path / "my-board"
    shutil.copytree(TARGETS / "rpi4", folder)
    rewrite(folder, 'name = "rpi4"', 'name = "my-board"')
    return folder


def rewrite(folder: Path, old: str, new: str) -> None:
    file = folder / "board.toml"
    text = file.read_text()
    assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times"
    file.write_text(text.replace(old, new))


def message(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_board(folder)
    assert str(folder / "board.toml") in str(caught.value)
    return str(caught.value)


def test_the_bundled_boards_are_these() -> None:
    assert list(board_files()) == BUNDLED


@pytest.mark.parametrize("name", BUNDLED)
def test_every_bundled_board_loads_and_llvm_knows_its_cpu(name: str) -> None:
    board = load_board(name)
    assert board.name == name
    target = board.tvm_target()
    assert str(target.attrs["mcpu"]) == board.llvm.mcpu
    assert list(target.attrs["mattr"]) == list(board.llvm.mattr)
    assert int(target.attrs["num-cores"]) == board.cpu.cores


@pytest.mark.parametrize(
    ("name", "dotprod"),
    [("rpi2", False), ("rpi3", False), ("rpi4", False), ("rpi5", True), ("cortex-a55", True)],
)
def test_the_feature_dotprod_is_claimed_exactly_where_llvm_has_it(name: str, dotprod: bool) -> None:
    from tvm.target import codegen

    board = load_board(name)
    assert ("dotprod" in board.cpu.features) == dotprod
    assert bool(codegen.llvm_cpu_has_features("dotprod", board.tvm_target())) == dotprod


@pytest.mark.parametrize("name", [name for name in BUNDLED if name != "host"])
def test_every_compile_script_names_its_own_folder(name: str, tmp_path: Path) -> None:
    script = TARGETS / name / "compile.sh"
    assert os.access(script, os.X_OK)
    tool = tmp_path / "edgenext-tvm"
    tool.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    tool.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    default = subprocess.run([script], env=environment, capture_output=True, text=True, check=True)
    assert default.stdout.split("\n")[:4] == ["compile", "edgenext_xx_small", "--board", str(script.parent)]
    given = subprocess.run(
        [script, "edgenext_small", "--json"], env=environment, capture_output=True, text=True, check=True
    )
    assert given.stdout.split() == ["compile", "edgenext_small", "--board", str(script.parent), "--json"]


def test_host_describes_this_machine() -> None:
    board = load_board("host")
    assert board.is_host
    assert board.cpu.isa == native.isa()
    assert board.cpu.cores == len(os.sched_getaffinity(0))
    assert board.memory.ram_bytes > 64 << 20
    assert board.cpu.l1d_bytes >= 8 << 10
    assert board.llvm.mcpu not in ("native", "")


def test_a_feature_that_a_hypervisor_masks_is_neither_claimed_nor_left_to_llvm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = native._known_features()
    model = native._model_features()
    present = [name for name in known if name in model]
    if not present:
        pytest.skip("LLVM lists no vector feature for this CPU")
    masked = present[-1]
    flags = {known[name] for name in present} - {known[masked]}
    monkeypatch.setattr(native, "_cpu_flags", lambda: flags)
    board = load_board("host")
    assert masked not in board.cpu.features
    assert f"-{masked}" in board.llvm.mattr


def test_a_copied_folder_is_a_board_by_folder_by_file_and_by_name(
    own_board: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_board(own_board).name == "my-board"
    assert load_board(own_board / "board.toml").file == own_board / "board.toml"
    monkeypatch.setenv(TARGETS_ENV, str(own_board.parent))
    assert load_board("my-board").cpu.core == "Cortex-A72"
    assert "my-board" in board_files() and "rpi5" in board_files()


def test_an_unknown_name_lists_the_boards() -> None:
    with pytest.raises(UserError, match=r"unknown board 'rpi9'.*cortex-a55, host, host-avx2, rpi2, rpi3, rpi4, rpi5"):
        load_board("rpi9")


def test_a_path_without_a_board_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"board\.toml does not exist.*rpi4"):
        load_board(tmp_path)


def test_a_copy_must_change_its_name(own_board: Path) -> None:
    rewrite(own_board, 'name = "my-board"', 'name = "rpi4"')
    assert "name: 'rpi4' differs from its folder 'my-board'; set name = \"my-board\"" in message(own_board)


MISTAKES = {
    "isa": (
        'isa = "aarch64"',
        'isa = "arm"',
        "cpu.isa: 'arm' is not allowed; allowed: 'x86_64', 'aarch64', 'armv7'",
    ),
    "feature": (
        'features = ["neon"]',
        'features = ["avx2"]',
        "cpu.features: 'avx2' is not a feature of aarch64",
    ),
    "unknown": (
        "cores = 4",
        "cores = 4\ncolour = 1",
        "cpu.colour: unknown field; allowed: core, isa, features",
    ),
    "missing": ("cores = 4", "", "cpu.cores: missing"),
    "range": (
        "cores = 4",
        "cores = 0",
        "cpu.cores: 0 is not allowed: input should be greater than or equal to 1",
    ),
    "type": ("cores = 4", 'cores = "four"', "cpu.cores: 'four' is not allowed"),
    "kind": (
        'kind = "zig"',
        'kind = "msvc"',
        "toolchain.kind: 'msvc' is not allowed; allowed: 'system', 'zig', 'gnu'",
    ),
    "gnu": ('kind = "zig"', 'kind = "gnu"', 'toolchain.cc: missing, kind "gnu" needs it'),
    "zig": ('zig_target = "aarch64-linux-musl"', "", 'toolchain.zig_target: missing, kind "zig" needs it'),
    "mattr": ('mattr = ["+neon"]', 'mattr = ["neon"]', "llvm.mattr: 'neon' must start with + or -"),
    "triple": (
        'mtriple = "aarch64-linux-gnu"',
        'mtriple = "foo-bar"',
        "board.toml: llvm.mtriple: 'foo-bar' is no triple of aarch64; it must begin with aarch64-",
    ),
    "qemu": ('qemu_cpu = "cortex-a72"', "", 'run.qemu, qemu_cpu: runner "qemu" needs both'),
    "section": ("[memory]", "[memori]", "memori: unknown field; allowed: name, description, cpu, memory"),
    "toml": ("cores = 4", "cores = ", "not valid TOML"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_names_file_field_and_what_is_allowed(own_board: Path, mistake: str) -> None:
    old, new, expected = MISTAKES[mistake]
    rewrite(own_board, old, new)
    assert expected in message(own_board)


def test_a_cpu_unknown_to_llvm_lists_the_known_ones(own_board: Path) -> None:
    rewrite(own_board, 'mcpu = "cortex-a72"', 'mcpu = "cortex-a99"')
    with pytest.raises(UserError, match=r"llvm\.mcpu: LLVM knows no CPU 'cortex-a99'.*cortex-a76"):
        load_board(own_board).tvm_target()


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('mattr = ["+neon"]', 'mattr = ["+neon", "+nosuch"]', r"llvm\.mattr: LLVM knows no feature '\+nosuch'"),
        ('features = ["neon"]', 'features = ["neon", "dotprod"]', r"cpu\.features: 'dotprod' is not enabled by"),
    ],
)
def test_features_that_llvm_does_not_have_are_named(own_board: Path, old: str, new: str, expected: str) -> None:
    rewrite(own_board, old, new)
    with pytest.raises(UserError, match=expected):
        load_board(own_board).tvm_target()
