"""Records survive whatever ends the writer; one writer at a time; a database that does not fit is refused with why."""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from edgenext_tvm.board import Board, load_board
from edgenext_tvm.errors import UserError
from edgenext_tvm.paths import TUNING_LOGS
from edgenext_tvm.tune.database import (
    LOCK,
    PACKED,
    RECORDS,
    WORKLOADS,
    TuningDatabase,
    folder_name,
    log_folder,
    log_folders,
)
from edgenext_tvm.tune.manifest import FILE_NAME, Fit, isa_level
from edgenext_tvm.tune.search import PointSearch, open_search
from edgenext_tvm.tune.tasks import Task, extract_tasks

_SPEC = importlib.util.spec_from_file_location("session_program", Path(__file__).parent / "session_program.py")
session_program = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(session_program)

DATE = "2026-01-01T00:00:00Z"


def opened(folder: Path, board: Board, unit: str = "s") -> TuningDatabase:
    return TuningDatabase(folder, board, "local" if unit == "s" else "emulator", unit, DATE)


@pytest.fixture(scope="module")
def task() -> Task:
    return extract_tasks(session_program.lowered_model(), load_board("host")).tunable[0]


def fill(database: TuningDatabase, task: Task, count: int) -> list[tuple[int, ...]]:
    """Commit the first `count` proposals with made-up costs 1, 2, ... ms."""
    search = PointSearch(task.space, 0, {p: s[0] for p, s in database.measured(task)[0].items()})
    candidates = open_search(task, search, count, count).generate_measure_candidates()
    known = set(search.cost)
    for number, candidate in enumerate(candidates, 1):
        database.commit(task, candidate, [number * 1e-3, number * 1e-3 + 1e-4])
    return [point for point in search.proposed if point not in known]


def test_what_was_committed_is_read_again(tmp_path: Path, host: Board, task: Task) -> None:
    with opened(tmp_path / "log", host) as database:
        points = fill(database, task, 3)
        database.save_manifest()
    with opened(tmp_path / "log", host) as database:
        found, outdated = database.measured(task)
        assert outdated == 0 and sorted(found) == sorted(points)
        assert found[tuple(task.space.default.values())] == (1e-3, 1.1e-3)
        other = extract_tasks(session_program.lowered_model(), host).tunable[1]
        assert database.measured(other) == ({}, 0)


def test_files_are_metaschedules(tmp_path: Path, host: Board, task: Task) -> None:
    from tvm.s_tir import meta_schedule as ms

    with opened(tmp_path, host) as database:
        fill(database, task, 2)
    records = ms.database.JSONDatabase(work_dir=str(tmp_path)).get_all_tuning_records()
    assert len(records) == 2
    assert str(records[0].target) == str(host.tvm_target())


@pytest.mark.parametrize("torn", ['[0,[[[["GetSB', "[0,[[\n", "\0\0\0\0"])
def test_a_torn_last_line_is_cut_off(tmp_path: Path, host: Board, task: Task, torn: str) -> None:
    with opened(tmp_path, host) as database:
        fill(database, task, 2)
        database.save_manifest()
    for name in (RECORDS, WORKLOADS):
        with (tmp_path / name).open("a") as file:
            file.write(torn)
    with opened(tmp_path, host) as database:
        assert len(database) == 2
        fill(database, task, 1)
    with opened(tmp_path, host) as database:
        assert len(database) == 3


def test_a_packed_database_opens_with_all_its_records_and_packs_to_the_same_bytes(
    tmp_path: Path, host: Board, task: Task
) -> None:
    with opened(tmp_path, host) as database:
        fill(database, task, 2)
        database.pack()
    packed = {name: (tmp_path / (name + PACKED)).read_bytes() for name in (RECORDS, WORKLOADS)}
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([FILE_NAME, RECORDS + PACKED, WORKLOADS + PACKED])
    with opened(tmp_path, host) as database:
        assert len(database) == 2
        database.pack()
    assert {name: (tmp_path / (name + PACKED)).read_bytes() for name in packed} == packed
    with opened(tmp_path, host) as database:
        fill(database, task, 1)
    # a session that did not pack at its end left plain files: they are the newer ones
    with opened(tmp_path, host) as database:
        assert len(database) == 3


def test_a_truncated_packed_file_is_named(tmp_path: Path, host: Board, task: Task) -> None:
    with opened(tmp_path, host) as database:
        fill(database, task, 1)
        database.pack()
    packed = tmp_path / (RECORDS + PACKED)
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(UserError, match=rf"is damaged: {packed.name}: .*remove this one"):
        opened(tmp_path, host)
    assert not (tmp_path / RECORDS).exists()


def test_a_full_disk_loses_nothing_and_says_what_to_do(tmp_path: Path, host: Board, task: Task) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with opened(tmp_path, host) as database:
        fill(database, task, 2)
        database.save_manifest()
        before = {name: (tmp_path / name).read_bytes() for name in (RECORDS, WORKLOADS, FILE_NAME)}
        # no file may grow beyond this: the next record is cut in the middle
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before[RECORDS]) + 200, hard))
        try:
            with pytest.raises(UserError, match=r"cannot write to .*what was measured before is safe.*--resume"):
                fill(database, task, 1)
            database.manifest.session = None
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
            with pytest.raises(UserError, match="cannot write to"):
                database.save_manifest()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert {name: (tmp_path / name).read_bytes() for name in before} == before
    with opened(tmp_path, host) as database:
        assert len(database) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([FILE_NAME, RECORDS, WORKLOADS])


def test_a_second_tuner_is_told_who_has_the_database(tmp_path: Path, host: Board) -> None:
    with (
        opened(tmp_path, host),
        pytest.raises(UserError, match=rf"in use by another tuning process \(pid {os.getpid()} on .*--log-dir"),
    ):
        opened(tmp_path, host)
    opened(tmp_path, host).close()


def test_the_lock_of_a_process_that_died_does_not_block(tmp_path: Path, host: Board) -> None:
    program = (
        "import fcntl, os, sys; f = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT); fcntl.flock(f, fcntl.LOCK_EX);"
        "os.write(f, b'pid 1 on gone'); os.kill(os.getpid(), 9)"
    )
    died = subprocess.run([sys.executable, "-c", program, str(tmp_path / LOCK)], check=False)
    assert died.returncode == -9
    opened(tmp_path, host).close()


def keep_empty(folder: Path, board: Board) -> None:
    """A database in `folder` that holds no record, as a session leaves that is killed at once."""
    with opened(folder, board, "instructions"):
        manifest = (folder / FILE_NAME).read_text()
    folder.mkdir(exist_ok=True)
    (folder / FILE_NAME).write_text(manifest)


def damage(folder: Path, **fit: object) -> None:
    manifest = json.loads((folder / FILE_NAME).read_text())
    manifest["fit"].update(fit)
    (folder / FILE_NAME).write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"tvm_version": "0.1"}, "it was made with TVM 0.1, this is TVM "),
        ({"pass_list_hash": "0" * 16}, "it was made with another list of passes"),
        ({"level": "avx2", "isa": "x86_64"}, "it was made for x86_64 avx2, the board is "),
        ({"target": {"mtriple": "x86_64-linux-gnu", "mcpu": "i486", "mattr": []}}, "it was made for the target .*i486"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_does_not_fit_is_refused_with_the_reason(tmp_path: Path, change: dict, reason: str) -> None:
    board = load_board("rpi4")
    keep_empty(tmp_path, board)
    damage(tmp_path, **change)
    with pytest.raises(UserError, match=f"does not fit: {reason}.*--log-dir, or remove"):
        opened(tmp_path, board, "instructions")


def test_times_and_instruction_counts_do_not_mix(tmp_path: Path) -> None:
    board = load_board("rpi4")
    keep_empty(tmp_path, board)
    with pytest.raises(UserError, match=r"measured in instructions by emulator.*\(s\) cannot be compared"):
        opened(tmp_path, board)


def test_a_foreign_folder_is_left_alone(tmp_path: Path, host: Board) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match=r"not empty and no tuning database \(no manifest.json, but thesis.tex\)"):
        opened(tmp_path, host)
    assert (tmp_path / "thesis.tex").read_text() == "precious"


def test_a_new_database_without_records_goes_away(tmp_path: Path, host: Board, task: Task) -> None:
    opened(tmp_path / "log", host).close()
    assert not (tmp_path / "log").exists()
    with opened(tmp_path / "log", host) as database:
        fill(database, task, 1)
    assert (tmp_path / "log" / FILE_NAME).is_file()


@pytest.mark.parametrize("text", ["{", "[]", '{"format": "x"}', '{"format": "edgenext_tvm tuning", "unit": 9}'])
def test_a_damaged_manifest_is_named(tmp_path: Path, host: Board, text: str) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(UserError, match=r"manifest\.json.*(remove it)"):
        opened(tmp_path, host)


def test_a_record_of_another_family_is_counted_and_not_used(tmp_path: Path, host: Board, task: Task) -> None:
    with opened(tmp_path, host) as database:
        fill(database, task, 2)
        database.save_manifest()
    records = (tmp_path / RECORDS).read_text()
    (tmp_path / RECORDS).write_text(records.replace(task.space.family, "x86_mmx.dense", 1))
    with opened(tmp_path, host) as database:
        found, outdated = database.measured(task)
        assert (len(found), outdated) == (1, 1)


def test_hosts_of_other_instructions_have_other_folders(host: Board, tmp_path: Path) -> None:
    def with_features(*names: str) -> Board:
        return host.model_copy(update={"cpu": host.cpu.model_copy(update={"features": names})})

    if host.isa == "x86_64":
        assert folder_name(with_features("avx2", "fma")) == "host-avx2"
        vnni = with_features("avx2", "avx512f", "avx512bw", "avx512vl", "avx512vnni", "avx512vbmi")
        assert folder_name(vnni) == "host-avx512vnni"
        assert folder_name(load_board("host-avx2")) == "host-avx2"
    assert folder_name(load_board("rpi4")) == "rpi4"
    assert isa_level(load_board("rpi5")) == "dotprod"


def test_a_users_board_keeps_its_database_beside_its_file(tmp_path: Path) -> None:
    source = Path(load_board("rpi4").file)
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "board.toml").write_text(source.read_text().replace('name = "rpi4"', 'name = "mine"'))
    board = load_board(folder)
    assert log_folder(board) == folder / "tuning_logs" / "mine"
    assert log_folders(load_board("rpi4"))[-1] == TUNING_LOGS / "rpi4"


def test_a_folder_that_cannot_be_made_is_told(host: Board) -> None:
    with pytest.raises(UserError, match=r"cannot make /proc/none.*--log-dir"):
        opened(Path("/proc/none/log"), host)


def test_other_hosts_of_one_level_share_choices(host: Board) -> None:
    here = Fit.of_board(host)
    there = here.model_copy(update={"target": {**here.target, "mcpu": "another"}})
    assert there.mismatch(here, any_core=True) is None
    assert "another" in (there.mismatch(here, any_core=False) or "")
