"""A session ends, or is ended by anything, with all that it measured; the next one goes on from there."""

from __future__ import annotations

import importlib.util
import io
import json
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from edgenext_tvm.board import Board
from edgenext_tvm.errors import UserError
from edgenext_tvm.tune.database import RECORDS, TuningDatabase
from edgenext_tvm.tune.local import LocalMeasurer
from edgenext_tvm.tune.manifest import load_tuning_manifest
from edgenext_tvm.tune.measure_program import TimingOptions
from edgenext_tvm.tune.progress import Display
from edgenext_tvm.tune.session import NothingMeasured, Outcome, Session
from edgenext_tvm.tune.tasks import Tasks, extract_tasks

PROGRAM = Path(__file__).parent / "session_program.py"
_SPEC = importlib.util.spec_from_file_location("session_program", PROGRAM)
session_program = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(session_program)

TRIALS = 10


def started(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(PROGRAM), str(folder), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_batch(process: subprocess.Popen[str], number: int = 1) -> None:
    """Until the session has reported `number` batches."""
    assert process.stderr is not None
    for line in process.stderr:
        number -= " trials, best " in line
        if number == 0:
            return
    raise AssertionError("the session ended early")


def records(folder: Path) -> list[str]:
    return (folder / RECORDS).read_text().splitlines()


def decisions(folder: Path) -> list[str]:
    """What tells one record from another: workload and decisions."""
    return [json.dumps([json.loads(line)[0], json.loads(line)[1][0]]) for line in records(folder)]


@pytest.fixture(scope="module")
def tasks(host: Board) -> Tasks:
    return extract_tasks(session_program.lowered_model(), host)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome, str]:
    """A whole session of a few trials per kernel: its folder, its outcome, and what it showed."""
    folder = tmp_path_factory.mktemp("session") / "log"
    shown = Console(record=True, width=300, file=io.StringIO())
    outcome = session_program.run(folder, 4, False, shown)
    return folder, outcome, shown.export_text()


def test_each_kernel_gets_a_winner_that_was_compared_side_by_side(finished: tuple[Path, Outcome, str]) -> None:
    folder, outcome, _ = finished
    manifest = load_tuning_manifest(folder)
    assert len(manifest.winners) == len(outcome.states) == len(outcome.decided) == 2
    assert outcome.trials == len(records(folder)) == 8
    for state in outcome.states:
        winner = state.winner
        assert winner is not None and winner.family == state.task.space.family
        state.task.space.check(winner.decisions)
        if winner.is_default:
            assert winner.decisions == state.task.space.default and winner.best_cost == winner.default_cost
        else:
            assert winner.best_cost * (1 + max(outcome.noise, winner.spread)) < winner.default_cost
    assert outcome.tuned_total <= outcome.default_total and outcome.geometric_mean >= 1


def test_tasks_come_in_order_of_their_share(finished: tuple[Path, Outcome, str]) -> None:
    _, outcome, _ = finished
    shares = [state.share for state in outcome.states]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1)


def test_the_manifest_says_how_it_was_measured(finished: tuple[Path, Outcome, str]) -> None:
    folder, outcome, shown = finished
    manifest = load_tuning_manifest(folder)
    assert (manifest.measured_by, manifest.unit, manifest.noise) == ("local", "s", outcome.noise)
    assert manifest.measured["cpu"] and manifest.measured["timing"]["rounds"] == 3
    assert manifest.session is not None and manifest.session.finished
    assert [(m.model, m.trials) for m in manifest.models] == [(session_program.MODEL, 8)]
    assert "A/A noise" in shown and "[2/2] dense" in shown


def test_a_second_session_measures_no_point_twice(finished: tuple[Path, Outcome, str]) -> None:
    folder, _, _ = finished
    before = records(folder)
    outcome = session_program.run(folder, 3, False, Console(quiet=True))
    after = records(folder)
    assert after[: len(before)] == before and len(after) == len(before) + outcome.trials == len(before) + 6
    assert len(set(decisions(folder))) == len(after)


def test_kill_9_loses_nothing_measured_and_resume_finishes_the_budget(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    process = started(folder, str(TRIALS))
    wait_for_batch(process)
    process.kill()
    process.communicate()
    kept = records(folder)
    assert len(kept) >= 8
    manifest = load_tuning_manifest(folder)
    assert manifest.session is not None and not manifest.session.finished
    done = started(folder, "1", "--resume")
    out, err = done.communicate(timeout=300)
    assert done.returncode == 0, err
    assert records(folder)[: len(kept)] == kept
    assert len(records(folder)) == 2 * TRIALS == len(set(decisions(folder)))
    manifest = load_tuning_manifest(folder)
    assert manifest.session is not None and manifest.session.finished and len(manifest.winners) == 2
    assert json.loads(out)["trials"] <= 2 * TRIALS - 8


def test_ctrl_c_saves_and_ends_with_130(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    process = started(folder, "1000")
    wait_for_batch(process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    result = json.loads(out)
    assert result["interrupted"] and len(records(folder)) == result["trials"] >= 8
    manifest = load_tuning_manifest(folder)
    assert manifest.session is not None and not manifest.session.finished


def test_a_disk_that_is_full_on_the_way_leaves_the_terminal_with_a_cursor(
    tmp_path: Path, host: Board, tasks: Tasks
) -> None:
    shown = io.StringIO()
    display = Display(Console(file=shown, force_terminal=True, width=100))
    measurer = LocalMeasurer(host, TimingOptions(rounds=3, min_ms=1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with TuningDatabase(tmp_path, host, "local", "s", "2026-01-01T00:00:00Z") as database:
        begin = display.begin

        def begin_on_a_full_disk(*arguments: object) -> None:
            begin(*arguments)
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))

        display.begin = begin_on_a_full_disk
        try:
            with pytest.raises(UserError, match="File too large"):
                Session(database, measurer, tasks, display, session_program.plan_for(database, 4, resume=False)).run()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            measurer.close()
    assert shown.getvalue().rfind("\x1b[?25h") > shown.getvalue().rfind("\x1b[?25l") >= 0


def test_without_one_valid_candidate_the_first_error_is_told(tmp_path: Path, host: Board, tasks: Tasks) -> None:
    measurer = LocalMeasurer(host, build_limit_s=0.001)
    with TuningDatabase(tmp_path, host, "local", "s", "2026-01-01T00:00:00Z") as database:
        plan = session_program.plan_for(database, 4, resume=False)
        session = Session(database, measurer, tasks, Display(Console(quiet=True)), plan)
        with pytest.raises(NothingMeasured, match="not one of 2 kernels could be measured; the first error: cannot bu"):
            session.run()
    measurer.close()
