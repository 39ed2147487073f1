"""Tuning from a MODEL's name to a database, a summary and a check against float32: the whole command."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from edgenext_tvm.compiler import CompileSettings, Progress, Stages, lower_model
from edgenext_tvm.errors import UserError
from edgenext_tvm.tune import manifest
from edgenext_tvm.tune.check_float import check_against_float32
from edgenext_tvm.tune.database import TuningDatabase, log_folder
from edgenext_tvm.tune.manifest import FloatCheck
from edgenext_tvm.tune.measurers import open_measurer, runner_for
from edgenext_tvm.tune.progress import Display
from edgenext_tvm.tune.session import DEFAULT_TRIALS, NothingMeasured, Outcome, Session, now
from edgenext_tvm.tune.tasks import extract_tasks

# the kernels of a model do not depend on its scales, so a few images are enough
CALIBRATION = "synthetic:4"
MAX_TRIALS = 1_000_000
MAX_MINUTES = 100_000


@dataclass(frozen=True)
class TuneSettings:
    """What `tune` was asked for. None: the documented default, or with resume what the unfinished session had.

    model  as `compile` takes it; its `out` is not used
    """

    model: CompileSettings
    runner: str | None = None
    trials: int | None = None
    time_budget_min: float | None = None
    tracker: str | None = None
    key: str | None = None
    resume: bool = False
    log_dir: Path | None = None
    check_float32: bool = True

    def __post_init__(self) -> None:
        if self.trials is not None and not 1 <= self.trials <= MAX_TRIALS:
            raise UserError(f"--trials is {self.trials}; allowed: 1 to {MAX_TRIALS}")
        if self.time_budget_min is not None and not 0 < self.time_budget_min <= MAX_MINUTES:
            raise UserError(f"--time-budget is {self.time_budget_min:g}; allowed: more than 0 to {MAX_MINUTES} minutes")
        if self.model.precision != "int8":
            raise UserError("only int8 kernels have anything to tune; remove --precision")

    @property
    def options(self) -> dict[str, Any]:
        """Of the model, as JSON values: a resumed session must have the same."""
        chosen = self.model
        return {
            "checkpoint": chosen.checkpoint,
            "num_classes": chosen.num_classes,
            "input_size": chosen.input_size,
        }


@dataclass(frozen=True)
class TuneResult:
    """What tuning came to.

    failed       not one candidate worked, with the first error
    interrupted  by Ctrl-C, also in the comparison with float32 after the session
    """

    folder: Path
    board: str
    runner: str
    outcome: Outcome | None
    check: FloatCheck | None = None
    failed: str = ""
    note: str = ""
    interrupted: bool = False


def tune(
    settings: TuneSettings,
    console: Console,
    progress: Progress | None = None,
    begin: Callable[[Path], None] | None = None,
) -> TuneResult:
    """Tunes the kernels of a model; see TuneResult. Raises UserError for every mistake of the user."""
    board = settings.model.board
    runner = runner_for(board, settings.runner)
    folder = Path(os.path.abspath(settings.log_dir)) if settings.log_dir else log_folder(board)
    if begin is not None:
        begin(folder)
    # what cannot succeed is told before the model is read: the lock, the database, the device
    with (
        contextlib.closing(open_measurer(board, runner, settings.tracker, settings.key)) as measurer,
        TuningDatabase(folder, board, measurer.name, measurer.unit, now()) as database,
    ):
        plan = _plan(settings, database)
        model = dataclasses.replace(settings.model, default_calibration=CALIBRATION)
        lowered = lower_model(model, Stages(progress))
        tasks = extract_tasks(lowered, board)
        display = Display(console)
        session = Session(database, measurer, tasks, display, plan)
        result = TuneResult(folder, board.name, runner, None)
        try:
            outcome = session.run()
        except NothingMeasured as error:
            return dataclasses.replace(result, failed=str(error))
        if not outcome.interrupted:
            database.pack()
        result = dataclasses.replace(result, outcome=outcome, interrupted=outcome.interrupted)
        if outcome.interrupted or not settings.check_float32:
            return result
        return _checked(settings, database, result, display)


def _checked(settings: TuneSettings, database: TuningDatabase, result: TuneResult, display: Display) -> TuneResult:
    display.say("comparing with float32: building both")
    try:
        check = check_against_float32(settings.model, result.folder, result.runner)
    except UserError as error:
        return dataclasses.replace(result, note=f"int8 was not compared with float32: {error}")
    except KeyboardInterrupt:
        # the session is over and its results are shown all the same
        return dataclasses.replace(result, note="int8 was not compared with float32: interrupted", interrupted=True)
    kept = [c for c in database.manifest.checks if (c.model, c.input_size) != (check.model, check.input_size)]
    database.manifest.checks = (*kept, check)
    database.save_manifest()
    return dataclasses.replace(result, check=check)


def _plan(settings: TuneSettings, database: TuningDatabase) -> manifest.Progress:
    """The budget: a new one, or what is left of the unfinished session's. UserError if there is none to resume."""
    budget_s = None if settings.time_budget_min is None else settings.time_budget_min * 60
    earlier = database.manifest.session
    if not settings.resume:
        trials = settings.trials or (DEFAULT_TRIALS if budget_s is None else MAX_TRIALS)
        return manifest.Progress(
            model=settings.model.model, options=settings.options, trials=trials, time_budget_s=budget_s
        )
    if earlier is None or earlier.finished:
        found = "has none" if earlier is None else f"finished its last one, of {earlier.model}"
        raise UserError(
            f"--resume: there is no unfinished session in {database.folder} (it {found}); run without --resume, which "
            "measures no point twice either"
        )
    if (earlier.model, earlier.options) != (settings.model.model, settings.options):
        given = " ".join(f"--{k.replace('_', '-')} {v}" for k, v in earlier.options.items() if v is not None)
        raise UserError(
            f"--resume: the unfinished session in {database.folder} tunes {earlier.model} {given}".rstrip()
            + "; give the same model, or run without --resume to begin a new session"
        )
    return earlier.model_copy(
        update={
            "trials": settings.trials or earlier.trials,
            "time_budget_s": budget_s or earlier.time_budget_s,
            "finished": False,
        }
    )
