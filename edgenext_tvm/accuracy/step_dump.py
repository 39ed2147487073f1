"""A program that runs a build's model step by step and hands out what every step leaves in the arena.

It is compiled beside the build, from the build's own lowered module with the same kernels; the build's library is not
touched and knows nothing of it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tvm

from edgenext_tvm.codegen import emit
from edgenext_tvm.codegen.build import default_schedule
from edgenext_tvm.codegen.lower_program import LoweredProgram, lower_program
from edgenext_tvm.codegen.plain_c import ALIGN_BYTES, object_bytes
from edgenext_tvm.codegen.program import Program, Value, read_program
from edgenext_tvm.codegen.toolchain import Toolchain
from edgenext_tvm.errors import UserError
from edgenext_tvm.paths import RUNTIME_C
from edgenext_tvm.verify.build_folder import BuildFolder
from edgenext_tvm.verify.host_build import model_meta
from edgenext_tvm.verify.runner import Runner

DUMP_SOURCE = Path(__file__).with_name("dump_steps.c")


@dataclass(frozen=True)
class StepDump:
    """A compiled dump program. entries: (step, value), the results of every step in order."""

    path: Path
    program: Program
    entries: tuple[tuple[int, Value], ...]

    def run(self, runner: Runner, inputs: np.ndarray) -> dict[int, np.ndarray]:
        """Every value's elements by its id: [N, *shape] of its dtype. inputs: [N,S,S,3] of the input's dtype.

        A value that is written in parts is what it was after its own step: the other parts are not there yet.
        """
        with tempfile.TemporaryDirectory(prefix="edgenext-tvm-dump-") as folder:
            source, written = Path(folder) / "inputs.bin", Path(folder) / "steps.bin"
            source.write_bytes(np.ascontiguousarray(inputs).tobytes())
            runner.run(self.path, [source.name, written.name], [source], [written])
            content = np.fromfile(written, np.uint8)
        width = sum(value.size_bytes for _, value in self.entries)
        if content.size != len(inputs) * width:
            raise UserError(
                f"{self.path.name} on {runner.name} wrote {content.size} bytes, expected {len(inputs) * width}: "
                "the disk may be full"
            )
        rows, start, values = content.reshape(len(inputs), width), 0, {}
        for _, value in self.entries:
            part = np.ascontiguousarray(rows[:, start : start + value.size_bytes])
            values[value.id] = part.view(value.dtype).reshape(len(inputs), *value.shape)
            start += value.size_bytes
        return values


@contextmanager
def step_dump(build: BuildFolder, lowered: tvm.IRModule) -> Iterator[StepDump]:
    """Compiles the dump program of a build for the build's board, in a folder that is gone afterwards."""
    program = read_program(lowered)
    meta = model_meta(build, lowered)
    schedule = default_schedule(build.board.isa, build.board.cpu.features)
    native = lower_program(program, f"enx_{meta.name}", build.board.tvm_target(), schedule)
    entries = tuple((i, program.values[v]) for i, step in enumerate(program.steps) for v in step.results)
    toolchain = Toolchain.for_board(build.board)
    with tempfile.TemporaryDirectory(prefix="edgenext-tvm-dump-") as name:
        folder = Path(name)
        for file, text in emit.emit_model(native, meta).items():
            (folder / file).write_text(text)
        (folder / "dump_table.h").write_text(_table(native, entries, meta.name))
        kernels = folder / "kernels.o"
        kernels.write_bytes(object_bytes(native.kernels, build.board.tvm_target()))
        sources = [folder / "model.c", folder / "weights.c", DUMP_SOURCE]
        objects = toolchain.compile(sources, folder / "objects", [folder, RUNTIME_C / "include"])
        path = toolchain.link_executable([*objects, kernels], folder / "dump_steps")
        yield StepDump(path, program, entries)


def _table(native: LoweredProgram, entries: tuple[tuple[int, Value], ...], name: str) -> str:
    offsets = native.plan.value_offsets
    rows = "\n".join(f"    {{{step}u, {offsets[value.id]}u, {value.size_bytes}u}}," for step, value in entries)
    return f"""#include "{name}.h"

#define DUMP_MODEL enx_model_{name}
#define DUMP_ARENA_BYTES {native.plan.arena_bytes}
#define DUMP_ARENA_ALIGN {ALIGN_BYTES}
#define DUMP_ENTRIES {len(entries)}u

/* Where each result of a step lies right after it. */
static const struct {{
    uint32_t step, offset, bytes;
}} dump_entries[DUMP_ENTRIES] = {{
{rows}
}};
"""
