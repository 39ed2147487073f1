"""Measures what one core of this machine can do at most: the ceiling that layers are held against."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgenext_tvm.board import Board
from edgenext_tvm.codegen.toolchain import Toolchain
from edgenext_tvm.errors import UserError
from edgenext_tvm.native import isa

_SOURCE = Path(__file__).with_name("host_peak.c")
_FLAGS = ("-std=c11", "-O3", "-funroll-loops", "-fno-tree-loop-distribute-patterns")
_KIB = 1024
_MEMORY_BYTES = 64 << 20
# a third cache, where there is one, holds at least this many times the second
_BEYOND_L2 = 8
_LAST_LINES = 3


@dataclass(frozen=True)
class MemoryLevel:
    """One level. capacity_bytes: what fits in it, None for the last; bytes_per_s: read and written ones alike."""

    name: str
    capacity_bytes: int | None
    bytes_per_s: float


@dataclass(frozen=True)
class HostPeak:
    """One core's best int8 multiply-adds a second (and by which instructions), and its memory levels, nearest first."""

    instruction: str
    macs_per_s: float
    levels: tuple[MemoryLevel, ...]

    def bandwidth(self, moved_bytes: int) -> MemoryLevel:
        """The nearest level that holds so many bytes."""
        fitting = (x for x in self.levels if x.capacity_bytes is None or moved_bytes <= x.capacity_bytes)
        return next(fitting)

    def to_dict(self) -> dict[str, Any]:
        return {
            "instruction": self.instruction,
            "gmacs_per_s": self.macs_per_s / 1e9,
            "levels": [
                {"name": x.name, "capacity_bytes": x.capacity_bytes, "gbytes_per_s": x.bytes_per_s / 1e9}
                for x in self.levels
            ],
        }


def measure_host_peak(board: Board) -> HostPeak:
    """Compiles and runs the calibration, about two seconds, on this machine, which `board` describes.

    Every figure is the best of many trials, of memory the better of reading and copying. UserError without a compiler.
    """
    sizes = {
        "L1": (board.cpu.l1d_bytes, board.cpu.l1d_bytes // 2),
        "L2": (board.cpu.l2_bytes, board.cpu.l2_bytes // 2),
        "beyond L2": (_BEYOND_L2 * board.cpu.l2_bytes, _BEYOND_L2 * board.cpu.l2_bytes // 2),
        "memory": (None, max(_MEMORY_BYTES, 2 * _BEYOND_L2 * board.cpu.l2_bytes)),
    }
    measured = json.loads(_run(Toolchain.for_board(board).cc, [size // _KIB * _KIB for _, size in sizes.values()]))
    levels = tuple(
        MemoryLevel(name, capacity, max(found["read_bytes_per_s"], found["copy_bytes_per_s"]))
        for (name, (capacity, _)), found in zip(sizes.items(), measured["levels"], strict=True)
    )
    return HostPeak(measured["instruction"], measured["macs_per_s"], levels)


def _run(cc: tuple[str, ...], sizes: list[int]) -> str:
    native = "-mcpu=native" if isa() == "aarch64" else "-march=native"
    with tempfile.TemporaryDirectory(prefix="edgenext-tvm-peak-") as folder:
        program = Path(folder) / "host_peak"
        source = shutil.copy(_SOURCE, folder)
        command = [*cc, *_FLAGS, native, str(source), "-o", str(program)]
        for line in (command, [str(program), *map(str, sizes)]):
            done = subprocess.run(line, capture_output=True, text=True, errors="replace", check=False)
            if done.returncode != 0:
                last = "\n".join(done.stderr.strip().splitlines()[-_LAST_LINES:]) or "(no output)"
                raise UserError(f"this machine's peak cannot be measured; command failed: {' '.join(line)}\n{last}")
    return done.stdout
