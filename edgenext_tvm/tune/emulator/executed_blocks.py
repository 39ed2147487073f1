"""What ran between two marks of a counted program: blocks of machine code and how often each was executed."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgenext_tvm.errors import UserError
from edgenext_tvm.tune.emulator.elf_functions import read_functions

_LOADED = 1


@dataclass(frozen=True)
class ExecutedBlock:
    """Straight-line code: `code` starts at its first instruction and has at least `instructions` of them.

    A cost model may also want to know where it is: `address`, as linked.
    """

    address: int
    instructions: int
    executions: int
    code: bytes


class ProgramCode:
    """The machine code of a linked little-endian ELF program by address."""

    def __init__(self, path: Path) -> None:
        self._content = path.read_bytes()
        self.entry = read_functions(path).entry
        wide = self._content[4] == 2
        # ELF specification: header and program header layouts of both classes
        table = struct.unpack_from("<Q" if wide else "<I", self._content, 0x20 if wide else 0x1C)[0]
        size, count = struct.unpack_from("<HH", self._content, 0x36 if wide else 0x2A)
        self._segments: list[tuple[int, int, int]] = []
        for at in range(table, table + size * count, size):
            if wide:
                kind, _, offset, address, _, length = struct.unpack_from("<IIQQQQ", self._content, at)
            else:
                kind, offset, address, _, length = struct.unpack_from("<IIIII", self._content, at)
            if kind == _LOADED:
                self._segments.append((address, offset, length))

    def at(self, address: int, length: int) -> bytes:
        """`length` bytes from `address` as linked, fewer at the end of a segment; none outside of all."""
        for start, offset, size in self._segments:
            if start <= address < start + size:
                begin = offset + address - start
                return self._content[begin : min(begin + length, offset + size)]
        return b""


def split_at_marks(lines: Sequence[str], code: ProgramCode) -> list[list[ExecutedBlock]]:
    """The plugin's lines as what ran before the first mark, between the first and the second, and so on."""
    word, loaded_entry = lines[0].split()
    if word != "entry":
        raise UserError(f"the counting plugin wrote {lines[0]!r} instead of the entry point; remove its cache")
    bias = int(loaded_entry, 16) - code.entry
    segments: list[Counter[tuple[int, int]]] = [Counter()]
    for line in lines[1:]:
        if line == "mark":
            segments.append(Counter())
            continue
        address, instructions, executions = (int(text, 16) for text in line.split())
        # the emulator may translate a block more than once
        segments[-1][address - bias, instructions] += executions
    return [
        [ExecutedBlock(at, count, times, code.at(at, 4 * count)) for (at, count), times in segment.items()]
        for segment in segments
    ]
