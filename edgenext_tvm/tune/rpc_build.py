"""A candidate as a shared library that a stock TVM RPC server can load, with the arguments to call it with.

What is timed is the plain C function that code generation ships, for one thread: the whole parallel loop in one call.
A generated C function with TVM's packed calling convention hands it the data pointers of its tensors.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import numpy as np
import tvm_ffi
from tvm import tirx

from edgenext_tvm.board import Board
from edgenext_tvm.codegen.plain_c import PlainKernel, lower_kernel, object_bytes
from edgenext_tvm.codegen.toolchain import Toolchain
from edgenext_tvm.kernels import kernel_of
from edgenext_tvm.kernels.packing import pack_arguments
from edgenext_tvm.kernels.sample_inputs import sample_inputs
from edgenext_tvm.schedules.default import space_of

SYMBOL = "enx_candidate"
PACKED_SYMBOL = "enx_packed"

# tvm_ffi names the exported C symbol of a packed function so
_C_PREFIX = "__tvm_ffi_"


@dataclasses.dataclass(frozen=True, eq=False)
class Artifact:
    """A built candidate.

    library    bytes of the shared library; PACKED_SYMBOL takes one tensor an argument
    arguments  an array where the kernel reads values, (shape, dtype) of what it only writes
    """

    library: bytes
    arguments: tuple[np.ndarray | tuple[tuple[int, ...], str], ...]


def build(board: Board, func: tirx.PrimFunc, decisions: Mapping[str, int]) -> Artifact:
    """The candidate as an artifact for `board`. UserError if the decisions are none of its space or a tool fails."""
    scheduled = space_of(func, board.isa, board.cpu.features).at(dict(decisions))
    lowered = lower_kernel(scheduled, SYMBOL, board.tvm_target(), range(len(scheduled.params)))
    toolchain = Toolchain.for_board(board)
    with tempfile.TemporaryDirectory(prefix="enx_rpc_") as folder:
        kernel = Path(folder) / "kernel.o"
        kernel.write_bytes(object_bytes([lowered], board.tvm_target()))
        wrapper = Path(folder) / "packed.o"
        wrapper.write_bytes(_wrapper_object(toolchain, len(lowered.pointers), lowered.extent))
        library = toolchain.link_shared([kernel, wrapper], Path(folder) / "candidate.so")
        return Artifact(library.read_bytes(), _arguments(func, scheduled, lowered))


def build_job(board: Board, func: tirx.PrimFunc, decisions: Mapping[str, int]) -> Iterator[tuple]:
    """`build` in a worker: ("done", artifact)."""
    yield "done", build(board, func, decisions)


def _arguments(
    func: tirx.PrimFunc, scheduled: tirx.PrimFunc, lowered: PlainKernel
) -> tuple[np.ndarray | tuple[tuple[int, ...], str], ...]:
    kernel = kernel_of(func)
    types = [(tuple(int(n) for n in param.shape), str(param.dtype)) for param in scheduled.params]
    found: list[np.ndarray | tuple[tuple[int, ...], str]]
    if kernel is None:
        found = [_random(*type_) for type_ in types]
    else:
        inputs = pack_arguments(scheduled, sample_inputs(kernel))
        found = [*inputs, *types[len(inputs) :]]
    for value, type_ in zip(found, types, strict=True):
        assert not isinstance(value, np.ndarray) or (value.shape, value.dtype.name) == type_, (value.shape, type_)
    found += [((size,), "uint8") for size in lowered.hoisted_bytes]
    return tuple(found[index] for index in lowered.arguments)


def _random(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    rng = np.random.default_rng(0)
    if np.dtype(dtype).kind == "f":
        # like activations: no denormals, whose arithmetic is slow
        return rng.uniform(0.25, 2.0, shape).astype(dtype)
    return rng.integers(0, 100, shape).astype(dtype)


def wrapper_source(pointers: int, extent: int) -> str:
    """C source of PACKED_SYMBOL: `pointers` tensors become the data pointers of SYMBOL's whole range [0, extent)."""
    parameters = "".join("void *, " for _ in range(pointers))
    arguments = "".join(f"data_of(&args[{index}]), " for index in range(pointers))
    return f"""#include <tvm/ffi/c_api.h>

int32_t {SYMBOL}({parameters}int32_t begin, int32_t end);

static void *data_of(const TVMFFIAny *arg) {{
    const DLTensor *tensor = (const DLTensor *)arg->v_ptr;
    if (arg->type_index == kTVMFFITensor) {{
        tensor = (const DLTensor *)((const char *)arg->v_ptr + sizeof(TVMFFIObject));
    }}
    return (char *)tensor->data + tensor->byte_offset;
}}

int {_C_PREFIX}{PACKED_SYMBOL}(void *self, const TVMFFIAny *args, int32_t num_args, TVMFFIAny *result) {{
    (void)self;
    (void)result;
    if (num_args != {pointers}) {{
        return -1;
    }}
    return {SYMBOL}({arguments}0, {extent});
}}
"""


@cache
def _headers() -> tuple[Path, ...]:
    return Path(tvm_ffi.libinfo.find_include_path()), Path(tvm_ffi.libinfo.find_dlpack_include_path())


_wrappers: dict[tuple[tuple[str, ...], int, int], bytes] = {}


def _wrapper_object(toolchain: Toolchain, pointers: int, extent: int) -> bytes:
    key = (toolchain.cc, pointers, extent)
    if key not in _wrappers:
        with tempfile.TemporaryDirectory(prefix="enx_rpc_") as folder:
            source = Path(folder) / "packed.c"
            source.write_text(wrapper_source(pointers, extent))
            (compiled,) = toolchain.compile([source], Path(folder), _headers())
            _wrappers[key] = compiled.read_bytes()
    return _wrappers[key]
