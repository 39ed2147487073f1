"""A tracker and RPC servers as processes of this machine: TVM's own programs, without torch, as on a board.

`slow` servers know two functions that a measurement may run before each number: SLEEP, as long as asked, and HANG_ONCE,
which never returns in the first session of all servers and does nothing later.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from edgenext_tvm.tune.rpc_tracker import Tracker

SLEEP = "enx.farm.sleep"
HANG_ONCE = "enx.farm.hang_once"
PORTS = (20000, 32000)  # below those that the kernel gives to outgoing connections

# argv: tracker port, port, key, folder, seconds to sleep
_SLOW_SERVER = """
import sys
from tvm import rpc
tracker, port, key, folder, seconds = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], float(sys.argv[5])
def register():
    import os, time, uuid
    import tvm_ffi
    def log(word):
        with open(os.path.join(folder, "sleeps"), "a") as out:
            out.write(f"{word} {time.time()}\\n")
    @tvm_ffi.register_global_func("enx.farm.sleep")
    def sleep(*_):
        log("begin")
        time.sleep(seconds)
        log("end")
    @tvm_ffi.register_global_func("enx.farm.hang_once")
    def hang_once(*_):
        try:
            os.close(os.open(os.path.join(folder, "hung"), os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        time.sleep(1000)
server = rpc.Server("127.0.0.1", port, port + 1, key=key, tracker_addr=("127.0.0.1", tracker),
                    server_init_callback=register)
server.proc.join()
"""


def _is_free(port: int) -> bool:
    with socket.socket() as sock, contextlib.suppress(OSError):
        sock.bind(("127.0.0.1", port))
        return True
    return False


class Farm:
    """A tracker, and servers by address; a context manager that ends them all with everything they started."""

    def __init__(self, key: str = "farm") -> None:
        self.key = key
        self._folder = tempfile.TemporaryDirectory(prefix="enx_farm_")
        self.folder = Path(self._folder.name)
        # a board has no torch; TVM would import it and take three times as long to start
        (self.folder / "torch.py").write_text("raise ImportError('not on a board')\n")
        self._processes: dict[str, subprocess.Popen] = {}
        # farms of several processes begin at different ports
        self.ports = (port for port in range(PORTS[0] + os.getpid() * 97 % 9000, PORTS[1]) if _is_free(port))
        self.tracker = Tracker("127.0.0.1", next(self.ports))
        self._spawn("tracker", "-m", "tvm.exec.rpc_tracker", *self._listen_on(self.tracker.port))
        # a server that finds no tracker tries again only seconds later
        self._until("tracker", lambda: self.tracker.servers() is not None)

    def __enter__(self) -> Farm:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill(*self._processes)
        self._folder.cleanup()

    def _spawn(self, name: str, *arguments: str) -> None:
        environment = {**os.environ, "TVM_NUM_THREADS": "1", "PYTHONPATH": str(self.folder)}
        with (self.folder / f"{name}.log").open("wb") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def start(self, servers: int, sleep_s: float | None = None) -> list[str]:
        """Start so many more servers; with `sleep_s` slow ones. Their addresses, as soon as all are registered."""
        started = []
        for _ in range(servers):
            port = next(self.ports)
            address = f"127.0.0.1:{port}"
            if sleep_s is None:
                what = ["--tracker", self.tracker.address, "--key", self.key]
                self._spawn(address, "-m", "tvm.exec.rpc_server", *self._listen_on(port), *what)
            else:
                what = [str(self.tracker.port), str(port), self.key, str(self.folder), str(sleep_s)]
                self._spawn(address, "-c", _SLOW_SERVER, *what)
            started.append(address)
        for address in started:
            self._until(address, lambda address=address: address in self.tracker.servers().get(self.key, []))
        return started

    @staticmethod
    def _listen_on(port: int) -> list[str]:
        return ["--host", "127.0.0.1", "--port", str(port), "--port-end", str(port + 1)]

    def _until(self, name: str, is_up: Callable[[], bool], timeout_s: float = 120.0) -> None:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and self._processes[name].poll() is None:
            with contextlib.suppress(ValueError):
                if is_up():
                    return
            time.sleep(0.1)
        raise RuntimeError(
            f"{name} did not come up within {timeout_s:g} s:\n{(self.folder / f'{name}.log').read_text()}"
        )

    def kill(self, *names: str) -> None:
        """End "tracker" or the server of an address as a power cut would, with the workers it started."""
        processes = [self._processes.pop(name) for name in names]
        family = []
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                member = psutil.Process(process.pid)
                family += [member, *member.children(recursive=True)]
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        for process in processes:
            process.wait()
        psutil.wait_procs(family, timeout=10)

    def most_sleeping(self) -> int:
        """The largest number of servers that were inside SLEEP at the same time."""
        now = most = 0
        rows = [line.split() for line in (self.folder / "sleeps").read_text().splitlines()]
        for word, _ in sorted(rows, key=lambda row: float(row[1])):
            now += 1 if word == "begin" else -1
            most = max(most, now)
        return most
