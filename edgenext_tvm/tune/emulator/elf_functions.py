"""Names the function at an address of a linked ELF program, from its symbol table."""

from __future__ import annotations

import bisect
import struct
from dataclasses import dataclass
from pathlib import Path

from edgenext_tvm.errors import UserError

_SYMBOL_TABLE, _DYNAMIC_SYMBOLS, _FUNCTION = 2, 11, 2
UNNAMED = "(no symbol)"


@dataclass(frozen=True)
class ElfFunctions:
    """Functions of one program, sorted by address; `entry` is where it starts, both as linked."""

    entry: int
    starts: tuple[int, ...]
    ends: tuple[int, ...]
    names: tuple[str, ...]

    def at(self, address: int) -> str:
        """The function that holds `address`, or UNNAMED."""
        index = bisect.bisect_right(self.starts, address) - 1
        return self.names[index] if index >= 0 and address < self.ends[index] else UNNAMED


def read_functions(path: Path) -> ElfFunctions:
    """All function symbols of a little-endian 32 or 64 bit ELF program, of a stripped one those that it exports.

    UserError without a symbol table.
    """
    content = path.read_bytes()
    if not content.startswith(b"\x7fELF") or content[5] != 1:
        raise UserError(f"{path}: not a little-endian ELF file")
    wide = content[4] == 2
    # ELF specification: header, section header and symbol layouts of both classes
    entry, table = struct.unpack_from("<QxxxxxxxxQ" if wide else "<IxxxxI", content, 0x18)
    size, count = struct.unpack_from("<HH", content, 0x3A if wide else 0x2E)
    sections = []
    for at in range(table, table + size * count, size):
        layout = "<IIQQQQIIQQ" if wide else "<IIIIIIIIII"
        sections.append(struct.unpack_from(layout, content, at))
    tables = [s for s in sections if s[1] == _SYMBOL_TABLE] or [s for s in sections if s[1] == _DYNAMIC_SYMBOLS]
    if not tables:
        raise UserError(f"{path}: no symbol table, so instructions cannot be counted by function; link it without -s")
    _, _, _, _, offset, length, link, _, _, step = tables[0]
    strings = sections[link][4]
    found: dict[int, tuple[int, str]] = {}
    for at in range(offset, offset + length, step):
        if wide:
            name, info, _, _, value, extent = struct.unpack_from("<IBBHQQ", content, at)
        else:
            name, value, extent, info, _, _ = struct.unpack_from("<IIIBBH", content, at)
        if info & 15 == _FUNCTION and extent:
            text = content[strings + name : content.index(b"\0", strings + name)].decode()
            # bit 0 of an Arm function's address selects Thumb
            found.setdefault(value & ~1, (extent, text))
    starts = sorted(found)
    return ElfFunctions(
        entry & ~1,
        tuple(starts),
        tuple(start + found[start][0] for start in starts),
        tuple(found[start][1] for start in starts),
    )
