"""One batch on its way: which candidates are being built, wait for a server, or run, and until when.

One loop waits for all worker processes together. A trial's clock starts when its session stands; the time in the
tracker's queue has a limit of its own.
"""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Sequence
from multiprocessing.connection import wait
from typing import TYPE_CHECKING

from ..errors import UserError
from .measure import Candidate, Measurement, MeasurerLost
from .rpc_build import Artifact
from .rpc_worker import WorkerProcess

if TYPE_CHECKING:
    from .rpc import RpcMeasurer

_LOOK_S = 1.0
# the server ends a session at its limit by itself and is free again; only then do we give it up
_GRACE_S = 10.0
_ATTEMPTS = 2


@dataclasses.dataclass
class _Build:
    worker: WorkerProcess
    index: int
    deadline: float


@dataclasses.dataclass
class _Waiting:
    index: int
    artifact: Artifact
    lost: list[str]


@dataclasses.dataclass
class _Trial:
    """phase: "queued" until the tracker gives a server, "offered" until the session stands, then "running"."""

    worker: WorkerProcess
    waiting: _Waiting
    started: float
    deadline: float
    phase: str = "queued"
    address: str = ""


class Batch:
    """The candidates of one call of `measure`."""

    def __init__(self, measurer: RpcMeasurer, candidates: Sequence[Candidate]) -> None:
        self.measurer = measurer
        self.limits = measurer.limits
        self.candidates = candidates
        self.results: list[Measurement | None] = [None] * len(candidates)
        self.unbuilt = deque(range(len(candidates)))
        self.ready: deque[_Waiting] = deque()
        self.builds: list[_Build] = []
        self.trials: list[_Trial] = []
        self.last_seen = time.monotonic()
        self.last_look = 0.0
        self.silence = ""

    def run(self) -> list[Measurement]:
        """All measurements. MeasurerLost, with those made, once no server has been there for as long as allowed."""
        try:
            while None in self.results:
                self._look_for_servers()
                self._start()
                self._receive()
                self._expire()
        finally:
            for worker in [*(build.worker for build in self.builds), *(trial.worker for trial in self.trials)]:
                worker.kill()
        return [result for result in self.results if result is not None]

    def _look_for_servers(self) -> None:
        now = time.monotonic()
        if now - self.last_look < _LOOK_S:
            return
        self.last_look = now
        try:
            if self.measurer.refresh():
                self.last_seen, self.silence = now, ""
            else:
                self.silence = (
                    f"no server of key '{self.measurer.key}' is registered with {self.measurer.tracker.address} any "
                    f"more; start one on each board: {self.measurer.server_command}"
                )
        except UserError as error:
            self.silence = str(error)
        if any(trial.phase == "running" for trial in self.trials):
            self.last_seen = now
        if self.silence and now - self.last_seen > self.limits.back:
            self._lose(self.silence)

    def _lose(self, reason: str) -> None:
        rest = Measurement((), f"not measured: {reason}")
        for trial in self.trials:
            if trial.waiting.lost:
                self._finish(trial.waiting, Measurement((), _lost_text(trial.waiting.lost)))
        for waiting in self.ready:
            if waiting.lost:
                self._finish(waiting, Measurement((), _lost_text(waiting.lost)))
        raise MeasurerLost(reason, [rest if result is None else result for result in self.results])

    def _start(self) -> None:
        now = time.monotonic()
        slots = self.measurer.parallel
        # a few more than the servers can take, so that none waits for the compiler, and no more than memory is worth
        while self.unbuilt and len(self.builds) < self.measurer.build_workers and len(self.ready) < 2 * slots:
            index = self.unbuilt.popleft()
            candidate = self.candidates[index]
            worker = self.measurer.builders.take()
            self.builds.append(_Build(worker, index, now + self.limits.build))
            worker.start("build_job", self.measurer.board, candidate.func, dict(candidate.decisions))
        while self.ready and len(self.trials) < slots:
            waiting = self.ready.popleft()
            worker = self.measurer.testers.take()
            self.trials.append(_Trial(worker, waiting, now, now + self.limits.queue))
            measurer = self.measurer
            worker.start(
                "trial_job", measurer.tracker, measurer.key, waiting.artifact, measurer.timing, self.limits.trial
            )

    def _receive(self) -> None:
        jobs: list[_Build | _Trial] = [*self.builds, *self.trials]
        readable = wait([job.worker.connection for job in jobs], timeout=0.5 * _LOOK_S)
        for job in jobs:
            if job.worker.connection not in readable:
                continue
            message = job.worker.receive()
            if isinstance(job, _Build):
                self._on_build(job, message)
            else:
                self._on_trial(job, message)

    def _on_build(self, build: _Build, message: tuple | None) -> None:
        self.builds.remove(build)
        if message is None:
            self.results[build.index] = Measurement((), f"the compiler {build.worker.how_it_ended()}")
            build.worker.kill()
            return
        self.measurer.builders.give(build.worker)
        kind, value = message
        if kind == "done":
            self.ready.append(_Waiting(build.index, value, []))
        else:
            self.results[build.index] = Measurement((), f"build failed: {value}")

    def _on_trial(self, trial: _Trial, message: tuple | None) -> None:
        now = time.monotonic()
        if message is None:
            self._end(trial, keep=False)
            self._retry(trial, f"the measuring process {trial.worker.how_it_ended()}")
            return
        kind, value = message
        if kind == "queued":
            trial.started, trial.deadline = now, now + self.limits.queue
        elif kind == "offered":
            self.measurer.waited_s += now - trial.started
            trial.phase, trial.address, trial.deadline = kind, value, now + self.limits.connect
        elif kind == "running":
            trial.phase, trial.deadline = kind, now + self.limits.trial + _GRACE_S
            self.measurer.trials[value] = self.measurer.trials.get(value, 0) + 1
        else:
            self._end(trial, keep=True)
            if kind == "done":
                self._finish(trial.waiting, Measurement(value))
            elif kind == "lost":
                self._retry(trial, value)
            elif trial.phase == "queued":
                # the tracker, and no fault of the candidate; if it stays away, _look_for_servers ends the batch
                self.ready.append(trial.waiting)
                time.sleep(0.1)
            else:
                self._finish(trial.waiting, Measurement((), value))

    def _expire(self) -> None:
        now = time.monotonic()
        for build in [build for build in self.builds if build.deadline < now]:
            self.builds.remove(build)
            build.worker.kill()
            self.results[build.index] = Measurement((), f"build did not end within {self.limits.build:g} s")
        for trial in [trial for trial in self.trials if trial.deadline < now]:
            self._end(trial, keep=False)
            if trial.phase == "running":
                text = f"did not end within {self.limits.trial:g} s on {trial.address}; the server does not answer"
                self._finish(trial.waiting, Measurement((), text))
            elif trial.phase == "offered":
                self._retry(trial, f"no connection within {self.limits.connect:g} s")
            else:
                self.ready.append(trial.waiting)
                self._lose(
                    f"no server of key '{self.measurer.key}' became free within {self.limits.queue:g} s; "
                    f"see who uses them: python -m tvm.exec.query_rpc_tracker --host {self.measurer.tracker.host} "
                    f"--port {self.measurer.tracker.port}"
                )

    def _end(self, trial: _Trial, keep: bool) -> None:
        self.trials.remove(trial)
        if keep:
            self.measurer.testers.give(trial.worker)
        else:
            trial.worker.kill()

    def _retry(self, trial: _Trial, reason: str) -> None:
        trial.waiting.lost.append(f"{trial.address} ({reason})")
        if len(trial.waiting.lost) < _ATTEMPTS:
            self.ready.appendleft(trial.waiting)
        else:
            self._finish(trial.waiting, Measurement((), _lost_text(trial.waiting.lost)))

    def _finish(self, waiting: _Waiting, measurement: Measurement) -> None:
        self.results[waiting.index] = measurement


def _lost_text(lost: Sequence[str]) -> str:
    return "its server was lost in mid-trial: " + ", then ".join(lost)
