"""Exact counts of executed instructions, in total and by function, for programs and builds that run under qemu-user.

Counts do not depend on the machine that emulates: equal programs give equal counts. They are no cycles: they rank
schedules of one core well and say nothing about caches.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgenext_tvm.board import Board
from edgenext_tvm.codegen.toolchain import LIBRARIES, Toolchain
from edgenext_tvm.errors import UserError
from edgenext_tvm.paths import cache_dir
from edgenext_tvm.tune.emulator.elf_functions import ElfFunctions, read_functions
from edgenext_tvm.verify.build_folder import open_build
from edgenext_tvm.verify.runner import QemuRunner

_HERE = Path(__file__).parent
_LAST_LINES = 3


@dataclass(frozen=True)
class InstructionCounts:
    """Executed instructions: all of them, and by function name (functions that ran only)."""

    total: int
    by_function: dict[str, int]

    def __sub__(self, other: InstructionCounts) -> InstructionCounts:
        functions = Counter(self.by_function)
        functions.subtract(other.by_function)
        left = {name: count for name, count in functions.items() if count}
        return InstructionCounts(self.total - other.total, left)


def plugin_path() -> Path:
    """The compiled QEMU plugin, from the cache or compiled now. UserError if the host has no C compiler or it fails."""
    source = _HERE / "count_blocks.c"
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    path = cache_dir() / "emulator" / f"count_blocks-{digest}.so"
    if path.is_file():
        return path
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise UserError("counting instructions needs a C compiler; install gcc (Debian: gcc libc6-dev)")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        command = [compiler, "-shared", "-fPIC", "-O2", "-o", str(made), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise UserError(f"command failed: {' '.join(command)}\n{_last_lines(done.stderr)}")
        made.rename(path)
    return path


def count_program(runner: QemuRunner, program: Path, arguments: Sequence[str] = ()) -> InstructionCounts:
    """Instructions of one run of an unstripped program. UserError when it fails or qemu takes no plugins."""
    functions = read_functions(program)
    ran = run_counted(runner, program, arguments)
    if ran.status != 0:
        raise UserError(f"{program.name} on {runner.name} ended with status {ran.status}: {_last_lines(ran.stderr)}")
    return _sum_blocks(ran.blocks, functions)


@dataclass(frozen=True)
class CountedRun:
    """One run under the counting plugin: the plugin's lines (see count_blocks.c), and how the program ended.

    blocks is empty if a signal ended the program.
    """

    status: int
    stdout: str
    stderr: str
    blocks: tuple[str, ...]


def run_counted(
    runner: QemuRunner, program: Path, arguments: Sequence[str], mark: str | None = None, limit_s: float | None = None
) -> CountedRun:
    """Run an unstripped program and count its blocks, apart for each call of the function `mark` if one is named.

    UserError when qemu takes no plugins or the program has no such function; TimeoutExpired after `limit_s` seconds.
    """
    marked = ""
    if mark is not None:
        functions = read_functions(program)
        if mark not in functions.names:
            raise UserError(f"{program} has no function '{mark}' to count between")
        marked = f",mark={functions.starts[functions.names.index(mark)] - functions.entry}"
    with tempfile.TemporaryDirectory(prefix="edgenext-tvm-count-") as folder:
        out = Path(folder) / "blocks"
        plugin = f"{plugin_path()},out={out}{marked}"
        command = [runner.qemu, "-cpu", runner.cpu, "-plugin", plugin, str(program), *arguments]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, timeout=limit_s,
                check=False,
            )  # fmt: skip
        except OSError as error:
            raise UserError(f"cannot start {runner.qemu}: {error.strerror}; install it (Debian: qemu-user)") from None
        if not out.is_file():
            raise UserError(
                f"{runner.qemu} ran {program.name} but loaded no plugin; it must be built with plugin support, as "
                "Debian's qemu-user is (its qemu-user-static is not)"
            )
        lines = tuple(out.read_text().splitlines()) if done.returncode >= 0 else ()
        return CountedRun(done.returncode, done.stdout, done.stderr, lines)


def _sum_blocks(lines: Sequence[str], functions: ElfFunctions) -> InstructionCounts:
    word, loaded_entry = lines[0].split()
    assert word == "entry", lines[0]
    bias = int(loaded_entry, 16) - functions.entry
    by_function: Counter[str] = Counter()
    for line in lines[1:]:
        address, instructions, executions = (int(text, 16) for text in line.split())
        by_function[functions.at(address - bias)] += instructions * executions
    return InstructionCounts(by_function.total(), dict(by_function))


def count_inference(build_folder: str | Path, program: Path | None = None) -> InstructionCounts:
    """Instructions of one inference, start-up excluded, of a build made by `compile` for an emulated board.

    Functions are the kernels by their name in the build's manifest, and what runs between them. Links a small driver
    with the build's library; it is written to `program` if given. UserError if the board names no emulator.
    """
    build = open_build(build_folder)
    runner = QemuRunner.for_board(build.board)
    with tempfile.TemporaryDirectory(prefix="edgenext-tvm-count-") as folder:
        driver = program or Path(folder) / "count"
        _link_driver(build.path, build.manifest.name, build.board, driver, Path(folder))
        # One more run costs exactly one inference: what happens once cancels.
        return count_program(runner, driver, ["2"]) - count_program(runner, driver, ["1"])


def _link_driver(build: Path, name: str, board: Board, out: Path, work: Path) -> None:
    toolchain = Toolchain.for_board(board)
    defines = [f"MODEL=enx_model_{name}"]
    objects = toolchain.compile([_HERE / "count_main.c"], work, [build / "include"], defines)
    library = build / "lib" / f"lib{name}.a"
    command = [*toolchain.static_linker, "-static", *map(str, objects), str(library), *LIBRARIES, "-o", str(out)]
    toolchain._call(command)


def _last_lines(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-_LAST_LINES:]) or "(no output)"
