"""A Python process that runs one job at a time and may be killed at any moment: compilers crash, boards hang.

Parent and child talk over a socket pair. A job is a generator function of the child's module; everything it yields is
sent to the parent as it comes. An exception becomes the message ("failed", text), so a job always ends with a message.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

from edgenext_tvm.errors import UserError
from edgenext_tvm.paths import PACKAGE

_SHOWN_LINES = 4


class WorkerProcess:
    """A child that has imported `module`. Jobs are its generator functions; `connection` may be waited for."""

    def __init__(self, module: str) -> None:
        ours, theirs = socket.socketpair()
        self.connection = Connection(ours.detach())
        self._output = tempfile.TemporaryFile()  # noqa: SIM115
        path = os.pathsep.join(filter(None, [str(PACKAGE.parent), os.environ.get("PYTHONPATH")]))
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "edgenext_tvm.tune.rpc_worker", str(theirs.fileno()), module],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
                env={**os.environ, "PYTHONPATH": path},
                # Ctrl-C is the parent's to handle
                start_new_session=True,
            )

    def start(self, job: str, *arguments: Any) -> None:
        """Begin a job. Of a child that has ended, `receive` tells."""
        with contextlib.suppress(OSError):
            self.connection.send((job, arguments))

    def receive(self) -> tuple | None:
        """The next message, or None when the child has ended without one: see `how_it_ended`."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            return None

    def is_alive(self) -> bool:
        """Whether it can still take a job."""
        return self._process.poll() is None

    def how_it_ended(self) -> str:
        """The signal or exit code of a child that has ended, with the last lines that it printed."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        code = self._process.poll()
        if code is None:
            how = "closed its connection"
        else:
            how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        self._output.seek(0)
        lines = self._output.read()[-4000:].decode(errors="replace").strip().splitlines()
        return "\n".join([how, *lines[-_SHOWN_LINES:]])

    def kill(self) -> None:
        """End the child and what it started, at once; a second time does nothing."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self.connection.close()
        self._output.close()


def _die_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _message_of(error: Exception) -> str:
    text = str(error).strip() or "no message"
    if isinstance(error, UserError):
        return text
    lines = [line for line in text.splitlines() if line.strip()]
    return f"{type(error).__name__}: " + "\n".join(lines[:_SHOWN_LINES])


def _serve(connection: Connection, module_name: str) -> None:
    module = importlib.import_module(module_name)
    while True:
        try:
            job, arguments = connection.recv()
        except EOFError:
            return
        try:
            for message in getattr(module, job)(*arguments):
                connection.send(message)
        except Exception as error:
            connection.send(("failed", _message_of(error)))


def main() -> None:
    """Serve the parent until it closes the connection or ends."""
    threading.Thread(target=_die_with, args=(os.getppid(),), daemon=True).start()
    # TVM imports torch where it is installed, which takes three times as long as TVM itself, and no job needs it.
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]
    _serve(Connection(int(sys.argv[1])), sys.argv[2])


if __name__ == "__main__":
    main()
