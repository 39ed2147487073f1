"""Builds candidates in worker processes that outlive a batch; a crash or a hang costs one candidate."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import IO

from edgenext_tvm.board import Board
from edgenext_tvm.errors import UserError
from edgenext_tvm.paths import PACKAGE
from edgenext_tvm.tune.measure_program.build_candidate import BuiltCandidate

_WORKER = "edgenext_tvm.tune.measure_program.build_worker"
_START_LIMIT_S = 120.0
_STDERR_BYTES = 4096

Request = tuple[str, Mapping[str, int], str]
"""(function as JSON, decisions, name)."""


@dataclass
class _Job:
    index: int
    deadline: float


class _Worker:
    """One process; `job` is what it builds now. It is ready once it has answered for the first time."""

    def __init__(self, board: Board) -> None:
        ours, theirs = socket.socketpair()
        self.log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        path = os.pathsep.join(filter(None, [str(PACKAGE.parent), os.environ.get("PYTHONPATH")]))
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", _WORKER, str(theirs.fileno())],
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
                start_new_session=True,  # Ctrl-C belongs to the tuner, which then ends its workers itself
            )  # fmt: skip
        self.connection = Connection(ours.detach())
        self.ready = False
        self.job: _Job | None = None
        self.started = time.monotonic()
        self.connection.send(board)

    def how_it_ended(self) -> str:
        """For people: its signal or status, and the last line it wrote."""
        status = self.process.wait()
        name = signal.Signals(-status).name if status < 0 else f"status {status}"
        self.log.seek(max(0, self.log.seek(0, os.SEEK_END) - _STDERR_BYTES))
        lines = self.log.read().decode(errors="replace").strip().splitlines()
        return f"{name}{': ' + lines[-1].strip() if lines else ''}"

    def end(self) -> None:
        """End the process and give its resources back."""
        self.process.kill()
        self.process.wait()
        self.connection.close()
        self.log.close()


class BuildPool:
    """Builds for one board, in `workers` processes, each candidate within `limit_s` seconds."""

    def __init__(self, board: Board, workers: int, limit_s: float) -> None:
        self._board, self._size, self._limit_s = board, workers, limit_s
        self._workers: list[_Worker] = []

    def build(self, requests: Sequence[Request]) -> list[BuiltCandidate | str]:
        """What each request became, in order: built, or why not. UserError if no worker starts."""
        results: list[BuiltCandidate | str] = ["not built"] * len(requests)
        waiting = deque(range(len(requests)))
        try:
            while waiting or any(worker.job for worker in self._workers):
                while len(self._workers) < min(self._size, len(requests)):
                    self._workers.append(_Worker(self._board))
                self._assign(requests, waiting)
                self._collect(results)
        except BaseException:
            # an answer still under way would be taken for one of the next batch
            self.close()
            raise
        return results

    def _assign(self, requests: Sequence[Request], waiting: deque[int]) -> None:
        for worker in self._workers:
            if worker.ready and worker.job is None and waiting:
                index = waiting.popleft()
                worker.job = _Job(index, time.monotonic() + self._limit_s)
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # `_collect` finds it ended
                    worker.connection.send(requests[index])

    def _collect(self, results: list[BuiltCandidate | str]) -> None:
        """Take what has arrived, waiting until something does or the next deadline passes."""
        deadlines = [_deadline(worker) for worker in self._workers if worker.job or not worker.ready]
        limit = max(0.0, min(deadlines) - time.monotonic())
        by_connection = {worker.connection: worker for worker in self._workers}
        for connection in wait(list(by_connection), limit):
            worker = by_connection[connection]  # type: ignore[index]
            try:
                answer = worker.connection.recv()
            except (EOFError, ConnectionResetError):
                self._bury(worker, results)
                continue
            if worker.job is not None:
                results[worker.job.index] = answer
            worker.ready, worker.job = True, None
        for worker in [worker for worker in self._workers if worker.job or not worker.ready]:
            if time.monotonic() < _deadline(worker):
                continue
            if worker.job is None:
                raise UserError(
                    f"a build process did not start within {_START_LIMIT_S:g} s; is this machine overloaded?"
                )
            results[worker.job.index] = f"building took longer than {self._limit_s:g} s and was ended"
            self._remove(worker)

    def _bury(self, worker: _Worker, results: list[BuiltCandidate | str]) -> None:
        ended = worker.how_it_ended()
        self._remove(worker)
        if worker.job is None:
            raise UserError(f"a build process ended by itself, with {ended}; check that this machine has memory left")
        results[worker.job.index] = f"the compiler crashed, with {ended}"

    def _remove(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.end()

    def close(self) -> None:
        """End all processes."""
        while self._workers:
            self._workers.pop().end()


def _deadline(worker: _Worker) -> float:
    return worker.job.deadline if worker.job else worker.started + _START_LIMIT_S
