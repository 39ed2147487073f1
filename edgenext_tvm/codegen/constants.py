"""Constants of a program as C: equal contents stored once, 64-byte aligned, in .rodata."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgenext_tvm.codegen.c_source import C_TYPES
from edgenext_tvm.codegen.lower_program import LoweredProgram
from edgenext_tvm.codegen.program import ConstantRef
from edgenext_tvm.errors import UserError

WORDS_PER_LINE = 8


@dataclass(frozen=True)
class StoredConstant:
    """One C object. `views`: TVM dtypes under which kernels read it; `uses`: "layer (argument n)" texts."""

    name: str
    words: tuple[int, ...]
    description: str
    views: tuple[str, ...]
    uses: tuple[str, ...]

    @property
    def size_bytes(self) -> int:
        return 4 * len(self.words)

    @property
    def members(self) -> list[tuple[str, str, int]]:
        """(C type, member name, elements) of each view."""
        return [(C_TYPES[v], v, self.size_bytes // np.dtype(v).itemsize) for v in self.views]

    @property
    def lines(self) -> list[str]:
        """The initialiser, WORDS_PER_LINE little-endian words a line."""
        return [
            ", ".join(f"0x{word:08x}" for word in self.words[i : i + WORDS_PER_LINE])
            for i in range(0, len(self.words), WORDS_PER_LINE)
        ]


@dataclass(frozen=True)
class ConstantTable:
    """Stored constants in order of first use, and for each constant of the program its place in that list."""

    stored: tuple[StoredConstant, ...]
    place: dict[int, int]


def _words(array: np.ndarray) -> tuple[int, ...]:
    data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    data += b"\0" * (-len(data) % 4)
    return tuple(int(word) for word in np.frombuffer(data, "<u4"))


def _describe(array: np.ndarray) -> str:
    shape = "x".join(str(dim) for dim in array.shape) or "scalar"
    return f"{array.dtype} {shape}"


def store_constants(lowered: LoweredProgram, prefix: str) -> ConstantTable:
    """Constants that steps read, deduplicated by content and named `{prefix}_c{n}`."""
    place: dict[int, int] = {}
    by_content: dict[bytes, int] = {}
    arrays: list[np.ndarray] = []
    views: list[list[str]] = []
    uses: list[list[str]] = []
    for step in lowered.steps:
        for argument, ref in enumerate(step.operands):
            if not isinstance(ref, ConstantRef):
                continue
            array = lowered.constants[ref.index]
            dtype = str(array.dtype)
            if dtype not in C_TYPES or dtype in ("int64", "float64", "bool"):
                raise UserError(
                    f"layer '{step.step.layer}' uses a constant of type {dtype}; constants may be "
                    "int8, uint8, int16, "
                    "uint16, int32, uint32 or float32"
                )
            # Padding to whole words must not merge arrays of different length.
            content = array.nbytes.to_bytes(8, "little") + array.tobytes()
            index = by_content.setdefault(content, len(arrays))
            if index == len(arrays):
                arrays.append(array)
                views.append([])
                uses.append([])
            place[ref.index] = index
            if dtype not in views[index]:
                views[index].append(dtype)
            uses[index].append(f"{step.step.layer} (argument {argument})")
    stored = tuple(
        StoredConstant(f"{prefix}_c{i}", _words(array), _describe(array), tuple(sorted(views[i])), tuple(uses[i]))
        for i, array in enumerate(arrays)
    )
    return ConstantTable(stored, place)


def total_bytes(stored: Sequence[StoredConstant]) -> int:
    """Bytes of all constants, alignment included."""
    return sum(-(-constant.size_bytes // 64) * 64 for constant in stored)
