"""One candidate becomes an object file with one plain function, and the layout of that function's memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import tvm
from tvm import tirx
from tvm.target import Target

from edgenext_tvm.board import Board
from edgenext_tvm.codegen.plain_c import ALIGN_BYTES, PlainKernel, lower_kernel, object_bytes
from edgenext_tvm.schedules.default import space_of

_FILLS = {
    "int8": "BYTES", "uint8": "BYTES", "int16": "INT16", "int32": "INT32", "int64": "INT64",
    "float32": "FLOAT32", "float64": "FLOAT64",
}  # fmt: skip
ZERO_FILL = "ZERO"


@dataclass(frozen=True)
class Argument:
    """One pointer of a built candidate: its size, and what it is filled with (the end of an enx_fill's name)."""

    bytes: int
    fill: str


@dataclass(frozen=True)
class BuiltCandidate:
    """An object file that defines `int32_t NAME(arguments..., begin, end)`, all of whose work is [0, extent)."""

    name: str
    object_file: bytes
    arguments: tuple[Argument, ...]
    extent: int


def build_candidate(func: tirx.PrimFunc, decisions: Mapping[str, int], name: str, board: Board) -> BuiltCandidate:
    """`func` at that point of its design space as machine code of the board. UserError if it is no such point."""
    space = space_of(func, board.isa, board.cpu.features)
    scheduled = space.at(decisions)
    # which parameters are written matters to C prototypes only
    kernel = lower_kernel(scheduled, name, _target(board), range(len(scheduled.params)))
    content = object_bytes([kernel], _target(board))
    return BuiltCandidate(name, content, _arguments(scheduled, kernel), kernel.extent)


@cache
def _target(board: Board) -> Target:
    """Checking every feature takes as long as scheduling a kernel."""
    return board.tvm_target()


def _arguments(scheduled: tirx.PrimFunc, kernel: PlainKernel) -> tuple[Argument, ...]:
    found = []
    for index in kernel.arguments:
        if index < len(scheduled.params):
            param = scheduled.params[index]
            found.append(Argument(_bytes_of(param), _FILLS.get(str(param.dtype), ZERO_FILL)))
        else:
            found.append(Argument(_rounded(kernel.hoisted_bytes[index - len(scheduled.params)]), ZERO_FILL))
    return tuple(found)


def _bytes_of(param: tirx.Var) -> int:
    dtype = str(param.dtype)
    item = 1 if dtype == "bool" else np.dtype(dtype).itemsize
    return _rounded(math.prod(int(dim) for dim in param.shape) * item)


def _rounded(size: int) -> int:
    return -(-size // ALIGN_BYTES) * ALIGN_BYTES


def build_from_json(func_json: str, decisions: Mapping[str, int], name: str, board: Board) -> BuiltCandidate:
    """As `build_candidate`, of a function as `tvm.ir.save_json` writes it: how it travels between processes."""
    return build_candidate(tvm.ir.load_json(func_json), decisions, name, board)
