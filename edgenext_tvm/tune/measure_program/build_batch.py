"""A batch of candidates becomes one static program; what cannot be built is told and left out."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tvm
from tvm import tirx

from edgenext_tvm.board import Board
from edgenext_tvm.codegen.toolchain import LIBRARIES, Toolchain
from edgenext_tvm.errors import UserError
from edgenext_tvm.tune.measure import Candidate
from edgenext_tvm.tune.measure_program.build_candidate import BuiltCandidate
from edgenext_tvm.tune.measure_program.build_pool import BuildPool

_HERE = Path(__file__).parent
_NAME = "enx_candidate_"
BUILD_LIMIT_S = 30.0
_ERROR_LINES = 2


@dataclass(frozen=True)
class BuiltBatch:
    """The program of a batch and the errors of the candidates that it lacks; it exists until the builder's next batch.

    program  None if no candidate could be built
    errors   why, by the candidate's index in the batch
    """

    program: Path | None
    size: int
    errors: dict[int, str]


def name_of(index: int) -> str:
    """The function, and the word in the program's lines, of a batch's candidate."""
    return f"{_NAME}{index}"


def index_of(name: str) -> int:
    """Reverse of `name_of`."""
    return int(name.removeprefix(_NAME))


class BatchBuilder:
    """Builds batches for one board; its processes and files live until `close`.

    workers  processes that build candidates; default: one for each processor but one, at least one
    limit_s  seconds that building one candidate may take
    """

    def __init__(self, board: Board, workers: int | None = None, limit_s: float = BUILD_LIMIT_S) -> None:
        self._toolchain = Toolchain.for_board(board)
        board.tvm_target()
        self._pool = BuildPool(board, workers or max(1, len(os.sched_getaffinity(0)) - 1), limit_s)
        self._folder = tempfile.TemporaryDirectory(prefix="edgenext-tvm-measure-")
        self._main: list[Path] = []

    def build(self, batch: Sequence[Candidate]) -> BuiltBatch:
        """The program of `batch`. UserError if the board's C compiler fails or the disk is full."""
        texts: dict[tirx.PrimFunc, str] = {}
        requests = []
        for index, candidate in enumerate(batch):
            if candidate.func not in texts:
                texts[candidate.func] = tvm.ir.save_json(candidate.func)
            requests.append((texts[candidate.func], dict(candidate.decisions), name_of(index)))
        results = self._pool.build(requests)
        errors = {index: f"cannot build: {result}" for index, result in enumerate(results) if isinstance(result, str)}
        built = [result for result in results if isinstance(result, BuiltCandidate)]
        try:
            program = self._link(built, errors) if built else None
        except OSError as error:
            raise UserError(
                f"cannot write the measuring program to {self._folder.name}: {error.strerror}; free some space, or "
                "name another folder in the environment variable TMPDIR"
            ) from None
        return BuiltBatch(program, len(batch), errors)

    def _link(self, built: Sequence[BuiltCandidate], errors: dict[int, str]) -> Path | None:
        """The program of those that link, None if there are none; `errors` gets the others'."""
        folder = Path(self._folder.name)
        if not self._main:
            self._main = self._toolchain.compile([_HERE / "main.c"], folder)
        for candidate in built:
            (folder / f"{candidate.name}.o").write_bytes(candidate.object_file)
        try:
            return self._link_together(built)
        except UserError:
            # one candidate may refer to a function that the board's libraries lack: find out which
            good = [candidate for candidate in built if self._links_alone(candidate, errors)]
            return self._link_together(good) if good else None

    def _links_alone(self, candidate: BuiltCandidate, errors: dict[int, str]) -> bool:
        try:
            self._link_together([candidate])
        except UserError as error:
            # after the command and before the advice is what the linker said
            said = str(error).splitlines()[2:-1] or [str(error)]
            errors[index_of(candidate.name)] = f"cannot link: {' / '.join(said[:_ERROR_LINES])}"
            return False
        return True

    def _link_together(self, built: Sequence[BuiltCandidate]) -> Path:
        folder = Path(self._folder.name)
        (folder / "table.c").write_text(_table(built))
        objects = [*self._main, *self._toolchain.compile([folder / "table.c"], folder, [_HERE])]
        objects += [folder / f"{candidate.name}.o" for candidate in built]
        program = folder / "measure"
        # with symbols, by which an emulator finds its way
        linker = self._toolchain.static_linker
        self._toolchain._call([*linker, "-static", *map(str, objects), *LIBRARIES, "-o", str(program)])
        return program

    def close(self) -> None:
        """End the build processes and remove the files."""
        self._pool.close()
        self._folder.cleanup()


def _table(built: Sequence[BuiltCandidate]) -> str:
    """The C source that tells main.c what to run."""
    arena_bytes = max(sum(argument.bytes for argument in candidate.arguments) for candidate in built)
    parts = [
        '#include "measure.h"\n',
        f"unsigned char enx_measure_arena[{arena_bytes}] __attribute__((aligned(4096)));\n",
    ]
    rows = []
    for candidate in built:
        name, count = candidate.name, len(candidate.arguments)
        pointers, arguments, offset = [], [], 0
        for argument in candidate.arguments:
            pointers.append(f"enx_measure_arena + {offset}")
            arguments.append(f"{{{offset}, {argument.bytes}, ENX_FILL_{argument.fill}}}")
            offset += argument.bytes
        parts.append(f"extern int32_t {name}({'void *, ' * count}int32_t, int32_t);")
        passed = "".join(f"{pointer}, " for pointer in pointers)
        parts.append(f"static int32_t call_{name}(void) {{ return {name}({passed}0, {candidate.extent}); }}")
        parts.append(f"static const struct enx_argument arguments_{name}[] = {{{', '.join(arguments)}}};\n")
        rows.append(f'    {{"{name}", call_{name}, arguments_{name}, {count}}},')
    parts += ["const struct enx_candidate enx_candidates[] = {", *rows, "};"]
    parts.append(f"const size_t enx_num_candidates = {len(built)};\n")
    return "\n".join(parts)
