"""Measuring behind TVM's RPC tracker: every server of one key measures one candidate at a time, all in parallel.

    board$  python -m tvm.exec.rpc_server --tracker HOST:9190 --key rpi4
    here    RpcMeasurer(load_board("rpi4"), "HOST:9190", "rpi4").measure(candidates)

Candidates are built in worker processes, sent to whichever server the tracker gives, and timed there on one thread. A
compiler that crashes, a board that hangs and a server that is killed cost their own candidate at most.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

from ..board import Board
from ..errors import UserError
from . import rpc_build, rpc_trial
from .measure import Candidate, Measurement
from .rpc_batch import Batch
from .rpc_tracker import Tracker
from .rpc_trial import Timing
from .rpc_worker import WorkerProcess


@dataclasses.dataclass(frozen=True)
class Limits:
    """Seconds after which something counts as gone.

    build    a candidate that is still being compiled becomes an error
    trial    a candidate that is still running on its server becomes an error; counted from when its session stands
    connect  a server that the tracker gave but that does not answer is lost
    queue    waiting for a free server; others may use the boards too, and waiting is no fault of a candidate
    back     no server of the key is registered, or the tracker does not answer: as long as it may take to come back
    """

    build: float = 60.0
    trial: float = 30.0
    connect: float = 20.0
    queue: float = 1800.0
    back: float = 20.0


class Workers:
    """Worker processes of one module, kept for the next job."""

    def __init__(self, module: str) -> None:
        self._module = module
        self._idle: list[WorkerProcess] = []

    def take(self) -> WorkerProcess:
        """An idle process, or a new one."""
        while self._idle:
            worker = self._idle.pop()
            if worker.is_alive():
                return worker
            # ended by someone else, such as the kernel for want of memory
            worker.kill()
        return WorkerProcess(self._module)

    def give(self, worker: WorkerProcess) -> None:
        """Back, its job ended."""
        self._idle.append(worker)

    def close(self) -> None:
        """End the idle ones."""
        while self._idle:
            self._idle.pop().kill()


class RpcMeasurer:
    """A Measurer over all servers that are registered with the tracker under `key`.

    tracker  "HOST:PORT"
    UserError if the tracker does not answer or has no server of that key.
    """

    name = "rpc"
    unit = "s"

    def __init__(
        self,
        board: Board,
        tracker: str,
        key: str,
        timing: Timing | None = None,
        limits: Limits | None = None,
        build_workers: int | None = None,
    ) -> None:
        self.board = board
        self.tracker = Tracker.parse(tracker)
        self.key = key
        self.timing = timing or Timing()
        self.limits = limits or Limits()
        self.build_workers = build_workers or min(4, os.cpu_count() or 1)
        self.builders = Workers(rpc_build.__name__)
        self.testers = Workers(rpc_trial.__name__)
        self.waited_s = 0.0
        self.trials: dict[str, int] = {}
        self._addresses = self._require_servers()
        self._seen = set(self._addresses)

    def _require_servers(self) -> list[str]:
        registered = self.tracker.servers()
        if self.key in registered:
            return registered[self.key]
        known = ", ".join(f"'{key}'" for key in registered) or "none at all"
        raise UserError(
            f"the tracker {self.tracker.address} has no server of key '{self.key}'; it has {known}. "
            f"Start one on each board: {self.server_command}"
        )

    @property
    def server_command(self) -> str:
        """What starts a server on a board."""
        return f"python -m tvm.exec.rpc_server --tracker {self.tracker.address} --key {self.key}"

    @property
    def parallel(self) -> int:
        """How many servers were registered when last asked, at the start or end of a batch; busy ones count too.

        A server that others use becomes free sooner or later, and its queue is the tracker's to keep.
        """
        return max(1, len(self._addresses))

    def refresh(self) -> list[str]:
        """The addresses registered now. UserError if the tracker does not answer."""
        self._addresses = self.tracker.servers().get(self.key, [])
        self._seen.update(self._addresses)
        return self._addresses

    def describe(self) -> dict[str, Any]:
        """How it measures; of every free server its processor, and governor and temperature where these can be read."""
        addresses = self._require_servers()
        facts: dict[str, Any] = dict.fromkeys(addresses, "busy, not asked")
        worker = self.testers.take()
        ended = False
        try:
            worker.start("describe_job", self.tracker, self.key, len(addresses), 5.0)
            while not ended and worker.connection.poll(30.0 * len(addresses)):
                message = worker.receive()
                if message is None:
                    break
                if message[0] == "server":
                    facts[message[1]] = message[2]
                else:
                    ended = True
        finally:
            if ended:
                self.testers.give(worker)
            else:
                worker.kill()
        return {
            "how": "TVM RPC, one thread, time_evaluator; candidates do not run in turn",
            "tracker": self.tracker.address,
            "key": self.key,
            "servers": facts,
            "timing": dataclasses.asdict(self.timing),
            "limits_s": dataclasses.asdict(self.limits),
            "trials": dict(self.trials),
            "waited_for_servers_s": round(self.waited_s, 3),
            "note": "null: over RPC only what the server's processor and file system give away is readable",
        }

    def measure(self, batch: Sequence[Candidate]) -> list[Measurement]:
        """One measurement for each candidate, in their order. MeasurerLost, with those made, if no server is left."""
        if not batch:
            return []
        return Batch(self, batch).run()

    def notes(self) -> Sequence[str]:
        """Which servers measured how much, and which are gone."""
        gone = sorted(self._seen - set(self._addresses))
        shares = ", ".join(f"{address} {self.trials.get(address, 0)}" for address in sorted(self._seen))
        lost = [f"lost {', '.join(gone)}: no longer registered with {self.tracker.address}"] if gone else []
        return [f"measurements by server: {shares}", *lost]

    def close(self) -> None:
        """End the worker processes."""
        self.builders.close()
        self.testers.close()
