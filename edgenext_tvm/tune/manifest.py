"""manifest.json of a tuning database: where it fits, how it was measured, and which points won."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgenext_tvm.board import Board
from edgenext_tvm.codegen.manifest import project_version
from edgenext_tvm.errors import UserError
from edgenext_tvm.passes.pipeline import pass_list_hash
from edgenext_tvm.versioned_json import read_versioned_json

FILE_NAME = "manifest.json"

_Count = Annotated[int, Field(ge=0)]
_Seconds = Annotated[float, Field(ge=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Fit(_Strict):
    """What must be equal for a database to mean anything: the pre-tuning passes, TVM, and the code's target."""

    tvm_version: str
    pass_list_hash: str
    isa: str
    level: str
    target: dict[str, Any]
    features: tuple[str, ...]

    @classmethod
    def of_board(cls, board: Board) -> Fit:
        """What databases of this checkout for `board` must say."""
        import tvm

        return cls(
            tvm_version=str(tvm.__version__),
            pass_list_hash=pass_list_hash(),
            isa=board.isa,
            level=isa_level(board),
            target=board.llvm.model_dump(mode="json"),
            features=tuple(board.cpu.features),
        )

    def mismatch(self, here: Fit, any_core: bool) -> str | None:
        """Why a database that says `self` does not fit `here`, or None. any_core: the level decides, not the CPU."""
        if self.tvm_version != here.tvm_version:
            return f"it was made with TVM {self.tvm_version}, this is TVM {here.tvm_version}"
        if self.pass_list_hash != here.pass_list_hash:
            return (
                f"it was made with another list of passes ({self.pass_list_hash}, now {here.pass_list_hash}): kernels "
                "of this version may differ"
            )
        if (self.isa, self.level) != (here.isa, here.level):
            return f"it was made for {self.isa} {self.level}, the board is {here.isa} {here.level}"
        if not any_core and (self.target, sorted(self.features)) != (here.target, sorted(here.features)):
            return (
                f"it was made for the target {_shown(self.target)} with {', '.join(self.features)}, the board is "
                f"{_shown(here.target)} with {', '.join(here.features)}"
            )
        return None


class Winner(_Strict):
    """What the last side-by-side measurement of a kernel decided. decisions: the hand-picked point's if is_default.

    default_cost, best_cost   of one call, in the manifest's unit
    spread                    relative difference of equal code within that measurement
    """

    family: str
    structural_hash: str
    decisions: dict[str, int]
    is_default: bool
    default_cost: _Seconds
    best_cost: _Seconds
    spread: _Seconds
    trials: _Count


class Progress(_Strict):
    """How far the last session came, so that --resume goes on with the rest of its budget."""

    model: str
    options: dict[str, Any]
    trials: _Count
    time_budget_s: float | None
    spent_s: _Seconds = 0.0
    trials_done: dict[str, int] = {}
    finished: bool = False


class FloatCheck(_Strict):
    """One inference in int8 (tuned) and float32, in the given unit, on the machine that measured the database."""

    model: str
    input_size: _Count
    int8: _Seconds
    float32: _Seconds
    unit: str
    how: str
    date: str

    @property
    def speedup(self) -> float:
        """How many times faster int8 is; below 1 it is slower."""
        return self.float32 / self.int8


class TunedModel(_Strict):
    """A model whose kernels were tuned. trials: measured points of its sessions."""

    model: str
    input_size: int | None
    trials: _Count
    date: str


class TuningManifest(_Strict):
    """See the module docstring. measured: the measurer's own account; noise: relative, of equal code measured twice."""

    format: Literal["edgenext_tvm tuning"] = "edgenext_tvm tuning"
    format_version: Literal[1] = 1
    project_version: str
    board: str
    fit: Fit
    measured_by: str
    measured: dict[str, Any]
    unit: str
    noise: float | None = None
    date: str
    models: tuple[TunedModel, ...] = ()
    winners: dict[str, Winner] = {}
    checks: tuple[FloatCheck, ...] = ()
    session: Progress | None = None

    def save(self, folder: Path) -> None:
        """Replaces the file whole: readers and a crash see the old one or the new one."""
        path = folder / FILE_NAME
        temporary = folder / f".{FILE_NAME}.{os.getpid()}"
        text = json.dumps(self.model_dump(mode="json"), indent=1, sort_keys=True) + "\n"
        try:
            with temporary.open("w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()


def new_manifest(board: Board, measured_by: str, unit: str, date: str) -> TuningManifest:
    """Return the manifest of a database without records."""
    return TuningManifest(
        project_version=project_version(),
        board=board.name,
        fit=Fit.of_board(board),
        measured_by=measured_by,
        measured={},
        unit=unit,
        date=date,
    )


def load_tuning_manifest(folder: Path) -> TuningManifest:
    """The manifest in `folder`. UserError for a missing, damaged, foreign or newer file."""
    path = folder / FILE_NAME
    advice = "give a folder written by `edgenext-tvm tune`, or remove it and tune again"
    if not path.is_file():
        raise UserError(f"{folder} is no tuning database: it has no {FILE_NAME}; {advice}")
    return read_versioned_json(path, TuningManifest, "tuning manifest", advice)


def isa_level(board: Board) -> str:
    """The best instructions of `board` that schedules distinguish, such as "avx512vnni" or "neon"."""
    from edgenext_tvm.schedules import instruction_level

    return instruction_level(board.isa, board.cpu.features)


def _shown(target: dict[str, Any]) -> str:
    return " ".join([target.get("mtriple", ""), target.get("mcpu", ""), *target.get("mattr", ())])
