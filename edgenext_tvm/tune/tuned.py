"""The schedule that `compile` uses: each kernel at the point that won its tuning, or the hand-picked one, and why."""

from __future__ import annotations

import itertools
from pathlib import Path

from tvm import tirx
from tvm_ffi import structural_hash

from edgenext_tvm.board import Board
from edgenext_tvm.codegen.manifest import TuningEntry
from edgenext_tvm.errors import UserError
from edgenext_tvm.report.tuning_tables import tuning_text
from edgenext_tvm.schedules.default import space_of
from edgenext_tvm.schedules.space import Space
from edgenext_tvm.tune.manifest import FILE_NAME, Fit, TuningManifest, load_tuning_manifest
from edgenext_tvm.tune.tasks import canonical, kernel_key


class TunedSchedule:
    """A `codegen.lower_program.Schedule` that remembers what it chose for every function.

    refusal  why a database that was found is not used; "" if it is, or if there is none
    """

    def __init__(self, board: Board, folder: Path | None = None, refusal: str = "") -> None:
        """folder: a database, which must fit (see `for_board`); without one every kernel is untuned."""
        self.board, self.folder, self.refusal = board, folder, refusal
        self.manifest: TuningManifest | None = load_tuning_manifest(folder) if folder is not None else None
        self.forget()

    @classmethod
    def for_board(cls, board: Board, use_tuning: bool = True, folder: Path | None = None) -> TunedSchedule:
        """The board's database, or the one in `folder`, or none; one that does not fit is refused, not used.

        UserError if `folder` is given but is no database, or together with use_tuning=False.
        """
        from edgenext_tvm.tune.database import log_folders

        if folder is not None and not use_tuning:
            raise UserError("--no-tuning and --tuning-logs exclude each other; remove one of them")
        if not use_tuning:
            return cls(board)
        found = folder or next((f for f in log_folders(board) if (f / FILE_NAME).is_file()), None)
        if found is None:
            return cls(board)
        try:
            manifest = load_tuning_manifest(found)
        except UserError as error:
            if folder is not None:
                raise
            return cls(board, None, f"{found.name}: {error}")
        reason = manifest.fit.mismatch(Fit.of_board(board), any_core=board.is_host)
        if reason is not None:
            return cls(board, None, f"{found.name}: {reason}")
        return cls(board, found)

    def forget(self) -> None:
        """Start the account of functions anew."""
        self._tuned: dict[str, dict[str, int]] = {}
        self._confirmed: list[str] = []
        self._fell_back: dict[str, str] = {}

    def __call__(self, func: tirx.PrimFunc) -> tirx.PrimFunc:
        """Return `func` scheduled at its point."""
        space = space_of(func, self.board.isa, self.board.cpu.features)
        name = str(func.attrs["global_symbol"])
        decisions = self._decide(func, space, name)
        return space.at(decisions)

    def _decide(self, func: tirx.PrimFunc, space: Space, name: str) -> dict[str, int] | None:
        if self.manifest is None or not has_choice(space):
            return None
        winner = self.manifest.winners.get(kernel_key(func))
        if winner is None:
            self._fell_back[name] = "not in the database"
            return None
        if winner.structural_hash != function_hash(func):
            self._fell_back[name] = "recorded for another version of the kernel"
            return None
        if winner.family != space.family:
            self._fell_back[name] = f"recorded for {winner.family}"
            return None
        try:
            space.check(winner.decisions)
        except UserError:
            self._fell_back[name] = "the recorded point is none of the space as it is now"
            return None
        if winner.is_default:
            self._confirmed.append(name)
            return None
        self._tuned[name] = dict(winner.decisions)
        return winner.decisions

    def entry(self) -> TuningEntry:
        """What was chosen for the functions scheduled so far, for a build's manifest."""
        if self.manifest is None:
            return TuningEntry(refused=self.refusal)
        assert self.folder is not None
        return TuningEntry(
            database=self.folder.name,
            measured_by=self.manifest.measured_by,
            unit=self.manifest.unit,
            tuned=self._tuned,
            confirmed=tuple(self._confirmed),
            fell_back=self._fell_back,
        )

    @property
    def summary(self) -> str:
        """One line for people."""
        return tuning_text(self.entry())


def has_choice(space: Space) -> bool:
    """Return whether a space has more than one point."""
    return sum(1 for _ in itertools.islice(space.points(), 2)) > 1


def function_hash(func: tirx.PrimFunc) -> str:
    """Return TVM's structural hash of a function, names apart, as manifests store it."""
    return f"{structural_hash(canonical(func)) & (1 << 64) - 1:016x}"
