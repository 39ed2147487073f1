"""Sums the loaded sections of an ELF file or archive: code, read-only data, data and bss kept apart."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from edgenext_tvm.errors import UserError

_SHF_WRITE, _SHF_ALLOC, _SHF_EXECINSTR = 1, 2, 4
_SHT_NOBITS = 8


@dataclass(frozen=True)
class SectionBytes:
    """Bytes that the program loads: code, constants, initialised and zero-initialised variables."""

    text: int
    rodata: int
    data: int
    bss: int

    @property
    def flash_bytes(self) -> int:
        """What a device stores: everything but bss."""
        return self.text + self.rodata + self.data

    def __add__(self, other: SectionBytes) -> SectionBytes:
        return SectionBytes(
            self.text + other.text,
            self.rodata + other.rodata,
            self.data + other.data,
            self.bss + other.bss,
        )


def read_size(path: Path) -> SectionBytes:
    """Section sizes of a little-endian ELF object, executable, shared library or an archive of objects."""
    content = path.read_bytes()
    if content.startswith(b"!<arch>\n"):
        total = SectionBytes(0, 0, 0, 0)
        for member in _archive_members(content):
            if member.startswith(b"\x7fELF"):
                total += _elf_size(member, path)
        return total
    return _elf_size(content, path)


def _archive_members(content: bytes) -> list[bytes]:
    members, at = [], 8
    while at + 60 <= len(content):
        size = int(content[at + 48 : at + 58])
        members.append(content[at + 60 : at + 60 + size])
        at += 60 + size + size % 2
    return members


def _elf_size(content: bytes, path: Path) -> SectionBytes:
    if not content.startswith(b"\x7fELF") or content[5] != 1:
        raise UserError(f"{path}: not a little-endian ELF file or archive")
    is_64 = content[4] == 2
    # e_shoff, e_shentsize, e_shnum (ELF specification, header layout)
    if is_64:
        (table,) = struct.unpack_from("<Q", content, 0x28)
        entry_bytes, count = struct.unpack_from("<HH", content, 0x3A)
    else:
        (table,) = struct.unpack_from("<I", content, 0x20)
        entry_bytes, count = struct.unpack_from("<HH", content, 0x2E)
    sums = {"text": 0, "rodata": 0, "data": 0, "bss": 0}
    for index in range(count):
        at = table + index * entry_bytes
        if is_64:
            _, kind, flags, _, _, size = struct.unpack_from("<IIQQQQ", content, at)
        else:
            _, kind, flags, _, _, size = struct.unpack_from("<IIIIII", content, at)
        if not flags & _SHF_ALLOC:
            continue
        if kind == _SHT_NOBITS:
            sums["bss"] += size
        elif flags & _SHF_EXECINSTR:
            sums["text"] += size
        elif flags & _SHF_WRITE:
            sums["data"] += size
        else:
            sums["rodata"] += size
    return SectionBytes(**sums)
