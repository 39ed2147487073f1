"""Compiling takes the points that won, says which, and keeps every bit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tvm

from edgenext_tvm.api import compile_model
from edgenext_tvm.board import Board, load_board
from edgenext_tvm.codegen.manifest import TuningEntry
from edgenext_tvm.errors import UserError
from edgenext_tvm.kernels import Dense, Lut
from edgenext_tvm.report.tuning_tables import tuning_text
from edgenext_tvm.schedules.default import space_of
from edgenext_tvm.tune.manifest import FILE_NAME, TuningManifest, Winner, new_manifest
from edgenext_tvm.tune.tasks import Task, extract_tasks
from edgenext_tvm.tune.tuned import TunedSchedule, function_hash
from edgenext_tvm.verify.build_folder import LOWERED_FILE, open_build
from edgenext_tvm.verify.device import run_logits
from edgenext_tvm.verify.runner import choose_runner

KERNEL = Dense(64, 32, 48, "lut")


def winner_at(task: Task, point: dict[str, int], **changes: object) -> Winner:
    values = {
        "family": task.space.family,
        "structural_hash": function_hash(task.func),
        "decisions": point,
        "is_default": point == task.space.default,
        "default_cost": 2e-6,
        "best_cost": 1e-6,
        "spread": 0.01,
        "trials": 3,
    }
    return Winner.model_validate(values | changes)


def save(folder: Path, board: Board, winners: dict[str, Winner]) -> TuningManifest:
    manifest = new_manifest(board, "local", "s", "2026-01-01T00:00:00Z")
    manifest.winners = winners
    manifest.save(folder)
    return manifest


def dense_task(board: Board) -> Task:
    func = KERNEL.prim_func("k")
    return Task(func, space_of(func, board.isa, board.cpu.features), 1, ("layer",), 1)


def other_point(task: Task) -> dict[str, int]:
    """The valid point farthest down the space that is not the hand-picked one."""
    return [point for point in task.space.points() if point != task.space.default][-1]


def test_a_kernel_runs_at_the_point_that_won(tmp_path: Path, host: Board) -> None:
    task = dense_task(host)
    point = other_point(task)
    save(tmp_path, host, {task.key: winner_at(task, point)})
    schedule = TunedSchedule.for_board(host, folder=tmp_path)
    scheduled = schedule(KERNEL.prim_func("enx_dense_7"))
    expected = task.space.at(point).with_attr("global_symbol", "enx_dense_7")
    tvm.ir.assert_structural_equal(scheduled, expected)
    entry = schedule.entry()
    assert (entry.tuned, entry.confirmed, entry.fell_back) == ({"enx_dense_7": point}, (), {})
    assert (entry.database, entry.measured_by, entry.unit) == (tmp_path.name, "local", "s")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"structural_hash": "0" * 16}, "recorded for another version of the kernel"),
        ({"family": "x86_mmx.dense"}, "recorded for x86_mmx.dense"),
        ({"decisions": {"rows": 977}}, "the recorded point is none of the space as it is now"),
    ],
    ids=["hash", "family", "point"],
)
def test_a_record_that_means_nothing_now_falls_back(tmp_path: Path, host: Board, changes: dict, reason: str) -> None:
    task = dense_task(host)
    save(tmp_path, host, {task.key: winner_at(task, other_point(task), **changes)})
    schedule = TunedSchedule.for_board(host, folder=tmp_path)
    tvm.ir.assert_structural_equal(schedule(KERNEL.prim_func("k")), task.space.at(None))
    assert schedule.entry().fell_back == {"k": reason}
    assert tuning_text(schedule.entry()) == f"0 of 1 kernels with a choice tuned by local; 1 fell back: {reason}"


def test_unknown_kernels_fall_back_and_those_without_a_choice_do_not_count(tmp_path: Path, host: Board) -> None:
    save(tmp_path, host, {})
    schedule = TunedSchedule.for_board(host, folder=tmp_path)
    schedule(KERNEL.prim_func("k"))
    assert schedule.entry().fell_back == {"k": "not in the database"}
    lut = Lut(16, 16)
    if sum(1 for _ in space_of(lut.prim_func("l"), host.isa, host.cpu.features).points()) == 1:
        schedule(lut.prim_func("l"))
    assert set(schedule.entry().fell_back) == {"k"}


def test_a_default_that_won_is_said_to_be_confirmed(tmp_path: Path, host: Board) -> None:
    task = dense_task(host)
    save(tmp_path, host, {task.key: winner_at(task, task.space.default)})
    schedule = TunedSchedule.for_board(host, folder=tmp_path)
    schedule(KERNEL.prim_func("k"))
    assert tuning_text(schedule.entry()) == "1 of 1 kernels with a choice tuned by local (1 keep the hand-picked point)"


def test_a_database_that_does_not_fit_is_refused_and_the_build_is_untuned(tmp_path: Path, host: Board) -> None:
    task = dense_task(host)
    save(tmp_path, host, {task.key: winner_at(task, other_point(task))})
    text = json.loads((tmp_path / FILE_NAME).read_text())
    text["fit"]["pass_list_hash"] = "0" * 16
    (tmp_path / FILE_NAME).write_text(json.dumps(text))
    schedule = TunedSchedule.for_board(host, folder=tmp_path)
    tvm.ir.assert_structural_equal(schedule(KERNEL.prim_func("k")), task.space.at(None))
    assert "another list of passes" in schedule.entry().refused and not schedule.entry().tuned
    assert tuning_text(schedule.entry()).startswith(f"UNTUNED: the tuning database {tmp_path.name}: it was made with ")


def test_no_tuning_means_none(tmp_path: Path, host: Board) -> None:
    assert TunedSchedule.for_board(host, use_tuning=False).entry() == TuningEntry()
    with pytest.raises(UserError, match="--no-tuning and --tuning-logs exclude each other"):
        TunedSchedule.for_board(host, use_tuning=False, folder=tmp_path)
    with pytest.raises(UserError, match=f"{tmp_path} is no tuning database: it has no manifest.json"):
        TunedSchedule.for_board(host, folder=tmp_path)


def test_the_boards_own_database_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    board = load_board("rpi4")
    folder = tmp_path / "edgenext_tvm" / "tuning_logs" / "rpi4"
    folder.mkdir(parents=True)
    save(folder, board, {})
    assert TunedSchedule.for_board(board).folder == folder


def test_a_tuned_build_gives_the_same_bits(tmp_path: Path, host: Board, host_build: Path) -> None:
    lowered = tvm.ir.load_json((host_build / LOWERED_FILE).read_text())
    tasks = extract_tasks(lowered, host).tunable
    assert len(tasks) > 5
    logs = tmp_path / "log"
    logs.mkdir()
    save(logs, host, {task.key: winner_at(task, other_point(task)) for task in tasks})
    result = compile_model(
        "edgenext_xx_small", host, input_size=64, calibration="synthetic:2", tuning_logs=logs, out=tmp_path / "build"
    )
    assert result.selftest is True
    tuning = result.manifest.tuning
    assert len(tuning.tuned) == len(tasks) and not tuning.fell_back and not tuning.confirmed
    assert result.to_dict()["tuning"]["database"] == "log"
    images = [np.random.default_rng(seed).integers(0, 256, (64, 64, 3)).astype(np.uint8) for seed in range(4)]
    runner = choose_runner(host, None)
    logits = [run_logits(open_build(folder), runner, images) for folder in (host_build, result.build_dir)]
    np.testing.assert_array_equal(logits[0], logits[1])
    objects = [(folder / "lib" / "objects" / "kernels.o").read_bytes() for folder in (host_build, result.build_dir)]
    assert objects[0] != objects[1]
