"""A tuning database: MetaSchedule's workloads and records of one board, and a manifest; one writer at a time.

Every measured point is on disk before the next is measured, so that whatever ends a session loses only the batch under
way. What a crash left half-written is cut off when the database is opened again. A database at rest is compressed:
its workloads repeat each other, and what ships is a twelfth of the size.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gzip
import json
import os
import socket
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tvm
from tvm.s_tir import meta_schedule as ms
from tvm.s_tir.schedule import Trace
from tvm.target import Target

from edgenext_tvm.board import Board
from edgenext_tvm.errors import UserError
from edgenext_tvm.paths import TARGETS, TUNING_LOGS, user_data_dir
from edgenext_tvm.tune.manifest import FILE_NAME, Fit, TuningManifest, isa_level, load_tuning_manifest, new_manifest
from edgenext_tvm.tune.points import point_of, replay
from edgenext_tvm.tune.search import Point, cost_of
from edgenext_tvm.tune.tasks import Task

WORKLOADS = "database_workload.json"
RECORDS = "database_tuning_record.json"
PACKED = ".gz"
LOCK = ".lock"
_ALL = 1 << 30


def folder_name(board: Board) -> str:
    """Return the board's name; of the host also what its instructions can do, since hosts differ.

    A board that names its level, such as host-avx2, shares the folder of hosts of that level.
    """
    level = f"-{isa_level(board)}"
    return board.name + level if board.is_host and not board.name.endswith(level) else board.name


def log_folders(board: Board) -> list[Path]:
    """Folders where a board's database may lie, in the order of the search.

    Beside the board.toml of a user's own board; else the user's data folder, then what comes with the package.
    """
    if not board.file.is_relative_to(TARGETS) and board.file.is_file():
        return [board.file.parent / "tuning_logs" / folder_name(board)]
    return [user_data_dir() / "tuning_logs" / folder_name(board), TUNING_LOGS / folder_name(board)]


def log_folder(board: Board) -> Path:
    """Where `tune` writes unless told otherwise: the first of `log_folders` that exists, else one that can be made."""
    folders = log_folders(board)
    found = [folder for folder in folders if (folder / FILE_NAME).is_file() and os.access(folder, os.W_OK)]
    if found:
        return found[0]
    # a checkout's own logs before the user's data folder: they are there to be committed
    return next((folder for folder in reversed(folders) if os.access(folder.parent, os.W_OK)), folders[0])


class TuningDatabase:
    """An open, locked database; see the module docstring. Use as a context manager."""

    def __init__(self, folder: Path, board: Board, measured_by: str, unit: str, date: str) -> None:
        """Opens or makes the database in `folder`.

        UserError if it was made for something else (with what to do), if another process tunes with it, or if the
        folder cannot be written.
        """
        self.folder = folder
        self.target: Target = board.tvm_target()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make {folder}: {error.strerror}; give another folder with --log-dir") from None
        self._lock = _acquire(folder / LOCK)
        self._is_new = not (folder / FILE_NAME).is_file()
        try:
            self.manifest = self._manifest(board, measured_by, unit, date)
            if self._is_new:
                self.save_manifest()
            self._unpack()
            for name in (WORKLOADS, RECORDS):
                _cut_torn_line(folder / name)
            self._database = self._open()
        except BaseException:
            self.close()
            raise

    def _manifest(self, board: Board, measured_by: str, unit: str, date: str) -> TuningManifest:
        if not (self.folder / FILE_NAME).is_file():
            foreign = [p.name for p in self.folder.iterdir() if not p.name.startswith(".")]
            if foreign:
                raise UserError(
                    f"{self.folder} is not empty and no tuning database (no {FILE_NAME}, but {foreign[0]}); give "
                    "another folder with --log-dir, or remove it"
                )
            return new_manifest(board, measured_by, unit, date)
        manifest = load_tuning_manifest(self.folder)
        advice = "give another folder with --log-dir, or remove this one"
        if reason := manifest.fit.mismatch(Fit.of_board(board), any_core=False):
            raise UserError(f"the tuning database {self.folder} does not fit: {reason}; {advice}")
        if manifest.unit != unit:
            raise UserError(
                f"the tuning database {self.folder} was measured in {manifest.unit} by {manifest.measured_by}, which "
                f"{measured_by} measurements ({unit}) cannot be compared with; {advice}"
            )
        return manifest

    def _open(self) -> ms.database.JSONDatabase:
        try:
            return ms.database.JSONDatabase(work_dir=str(self.folder))
        except Exception as error:
            last = str(error).strip().splitlines()[-1:]
            raise UserError(
                f"the tuning database {self.folder} is damaged: {' '.join(last)}; give another folder with --log-dir, "
                "or remove this one"
            ) from None

    def __enter__(self) -> TuningDatabase:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets others tune with the database. One that was made for nothing goes away again."""
        if self._lock is not None:
            if self._is_new and not any(_size(self.folder / name) for name in (RECORDS, RECORDS + PACKED)):
                self._remove()
            # others that wait for the removed file notice: see _acquire
            (self.folder / LOCK).unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None

    def pack(self) -> None:
        """Compress the files of a database that nothing more is added to; equal files give equal bytes.

        UserError when the disk is full; then both stay as they were.
        """
        for name in (WORKLOADS, RECORDS):
            plain = self.folder / name
            if plain.exists():
                try:
                    _replace(plain, name + PACKED, gzip.compress(plain.read_bytes(), mtime=0))
                except OSError as error:
                    raise self.unwritable(error.strerror or str(error)) from None
        # only when all are there: whichever plain file exists is the newer one
        for name in (WORKLOADS, RECORDS):
            (self.folder / name).unlink(missing_ok=True)

    def _unpack(self) -> None:
        for name in (WORKLOADS, RECORDS):
            packed = self.folder / (name + PACKED)
            if not packed.exists() or (self.folder / name).exists():
                continue
            try:
                _replace(packed, name, gzip.decompress(packed.read_bytes()))
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise UserError(
                    f"the tuning database {self.folder} is damaged: {packed.name}: {error}; give another folder with "
                    "--log-dir, or remove this one"
                ) from None
            except OSError as error:
                raise self.unwritable(error.strerror or str(error)) from None

    def _remove(self) -> None:
        with contextlib.suppress(OSError):
            for name in (WORKLOADS, RECORDS, FILE_NAME, LOCK):
                (self.folder / name).unlink(missing_ok=True)
            self.folder.rmdir()

    def __len__(self) -> int:
        return len(self._database)

    def measured(self, task: Task) -> tuple[dict[Point, tuple[float, ...]], int]:
        """Rounds of each recorded point of `task`, and how many records are no point of its space as it is now."""
        mod = tvm.IRModule({"main": task.func})
        if not self._database.has_workload(mod):
            return {}, 0
        workload = self._database.commit_workload(mod)
        found: dict[Point, tuple[float, ...]] = {}
        outdated = 0
        for record in self._database.get_top_k(workload, _ALL):
            seconds = tuple(float(second) for second in record.run_secs)
            try:
                decisions = decisions_of(record.trace, mod, task)
            except UserError:
                outdated += 1
                continue
            point = tuple(decisions[knob.name] for knob in task.space.knobs)
            if point not in found or cost_of(seconds) < cost_of(found[point]):
                found[point] = seconds
        return found, outdated

    def commit(self, task: Task, candidate: ms.MeasureCandidate, seconds: Sequence[float]) -> None:
        """Put one measured point on disk. UserError when it cannot be written; then the files are as before."""
        before = {name: _size(self.folder / name) for name in (WORKLOADS, RECORDS)}
        try:
            workload = self._database.commit_workload(tvm.IRModule({"main": task.func}))
            record = ms.database.TuningRecord(
                candidate.sch.trace, workload, list(seconds), self.target, candidate.args_info
            )
            self._database.commit_tuning_record(record)
            for name in (WORKLOADS, RECORDS):
                _sync(self.folder / name, grown=name == RECORDS, before=before[name])
        except Exception as error:
            for name, size in before.items():
                if _size(self.folder / name) > size:
                    os.truncate(self.folder / name, size)
            reason = os.strerror(error.errno or 0) if isinstance(error, OSError) else str(error).splitlines()[-1]
            raise self.unwritable(reason) from None

    def save_manifest(self) -> None:
        """Put the manifest on disk. UserError when it cannot be written; the old one stays."""
        try:
            self.manifest.save(self.folder)
        except OSError as error:
            raise self.unwritable(error.strerror or str(error)) from None

    def unwritable(self, reason: str) -> UserError:
        """The error of a disk that is full or gone."""
        return UserError(
            f"cannot write to {self.folder}: {reason}; what was measured before is safe: make room, then go on with "
            "--resume"
        )


def decisions_of(trace: Trace, mod: tvm.IRModule, task: Task) -> dict[str, int]:
    """Return the point that a record's trace names. UserError if it is no point of the task's space."""
    family, decisions = point_of(replay(trace, mod))
    if family != task.space.family:
        raise UserError(f"recorded for {family}, the kernel is {task.space.family} now")
    task.space.check(decisions)
    return decisions


def _replace(beside: Path, name: str, content: bytes) -> None:
    """Write `name` into the folder of `beside`, whole or not at all."""
    made = beside.with_name(f".{name}.new")
    try:
        made.write_bytes(content)
        made.rename(beside.with_name(name))
    except OSError:
        made.unlink(missing_ok=True)
        raise


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _sync(path: Path, grown: bool, before: int) -> None:
    """Flush a file to disk. MetaSchedule's writer does not tell when a write failed, so look at what arrived."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        size = file.seek(0, os.SEEK_END)
        if size == before and not grown:
            return
        file.seek(max(0, size - 1))
        if size <= before or file.read(1) != b"\n":
            raise OSError(errno.ENOSPC, "short write")


def _cut_torn_line(path: Path) -> None:
    """Remove what a crash left after the last whole line; a line that ends but is no JSON is cut too if it is last."""
    if not path.exists():
        return
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    last = content[content.rfind(b"\n", 0, max(0, end - 1)) + 1 : end]
    if last.strip():
        try:
            json.loads(last)
        except ValueError:
            end -= len(last)
    if end != len(content):
        os.truncate(path, end)


def _acquire(path: Path) -> Any:
    """A file descriptor that holds the lock; the system frees it when the process ends, however it ends."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise UserError(
            f"cannot write to {path.parent}: {error.strerror}; give another folder with --log-dir"
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise UserError(
            f"{path.parent} is in use by another tuning process ({owner}); wait for it, end it, or give another folder "
            "with --log-dir"
        ) from None
    if not path.exists() or os.stat(path).st_ino != os.fstat(descriptor).st_ino:
        # its last owner removed it between opening and locking
        os.close(descriptor)
        return _acquire(path)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"pid {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    return descriptor
