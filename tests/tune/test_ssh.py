"""Candidates timed over ssh, by a real sshd of our own: this machine plays the board."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from edgenext_tvm.board import Board
from edgenext_tvm.errors import UserError
from edgenext_tvm.tune.measure import Candidate, MeasurerLost
from edgenext_tvm.tune.measure_program import TimingOptions
from edgenext_tvm.tune.ssh import SshMeasurer

SERVER = shutil.which("sshd", path=f"/usr/sbin:{os.environ['PATH']}")
pytestmark = [
    pytest.mark.skipif(shutil.which("ssh") is None, reason="ssh not found: install openssh-client"),
    pytest.mark.skipif(SERVER is None, reason="sshd not found: install openssh-server"),
]


class Server:
    """An sshd on the loopback address with keys of its own, to be stopped and started again on the same port."""

    def __init__(self, folder: Path) -> None:
        for name in ("host_key", "user_key", "other_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        (folder / "authorized").write_text((folder / "user_key.pub").read_text())
        settings = {
            "ListenAddress": f"127.0.0.1:{self.port}",
            "HostKey": folder / "host_key",
            "AuthorizedKeysFile": folder / "authorized",
            "StrictModes": "no",
            "UsePAM": "no",
            "PidFile": "none",
            "MaxStartups": "100",
        }
        self.config = folder / "sshd_config"
        self.config.write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    def client(self, key: str = "user_key") -> tuple[str, ...]:
        """What ssh needs to know of this server."""
        known = f"UserKnownHostsFile={self.folder / 'known'}"
        quiet = ("-o", known, "-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR")
        return ("-i", str(self.folder / key), "-o", "IdentitiesOnly=yes", *quiet)

    def start(self, largest_file_bytes: int | None = None) -> None:
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)

        def limit() -> None:
            if largest_file_bytes is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file_bytes, largest_file_bytes))

        assert SERVER is not None
        self.process = subprocess.Popen(
            [SERVER, "-D", "-e", "-f", self.config], stderr=subprocess.DEVNULL, preexec_fn=limit
        )
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)

    def sessions(self) -> list[psutil.Process]:
        """The server's processes of open connections, without what runs in them."""
        assert self.process is not None
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in children if child.name() == "sshd"]

    def stop(self) -> None:
        """As if the board lost its power: listener and open connections end at once."""
        if self.process is not None:
            for session in self.sessions():
                session.kill()
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("ssh"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def remote_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("remote")


@pytest.fixture(scope="module")
def shared_measurer(host: Board, server: Server, remote_folder: Path) -> Iterator[SshMeasurer]:
    options = TimingOptions(rounds=3, min_ms=1, limit_ms=300)
    measurer = SshMeasurer(
        host, server.target, options, 1, ssh_options=server.client(), remote_folder=str(remote_folder)
    )
    yield measurer
    measurer.close()


@pytest.fixture
def measurer(shared_measurer: SshMeasurer, server: Server) -> Iterator[SshMeasurer]:
    server.start()
    yield shared_measurer
    server.stop()


def wait_until_empty(folder: Path) -> None:
    for _ in range(100):
        if not any(folder.iterdir()):
            return
        time.sleep(0.1)
    raise AssertionError(list(folder.iterdir()))


def test_candidates_are_timed_on_the_board_and_nothing_stays(
    measurer: SshMeasurer,
    candidates: list[Candidate],
    hanging: Candidate,
    crashing: Candidate,
    killing: Candidate,
    remote_folder: Path,
) -> None:
    first, second, _ = candidates
    measured = measurer.measure([first, hanging, crashing, killing, second])
    assert [len(measurement.seconds) for measurement in measured] == [3, 0, 0, 0, 3]
    assert measured[1].error == "did not end within 300 ms of processor time"
    assert measured[2].error == "crashed: Segmentation fault"
    assert str(measured[3].error).startswith(f"ended by SIGKILL on {measurer._ssh.name}")
    assert not any(remote_folder.iterdir())


def test_the_board_is_described(measurer: SshMeasurer, server: Server) -> None:
    described = measurer.describe()
    assert described["measurer"] == "ssh"
    assert described["target"] == f"ssh://{server.target}"
    assert described["kernel"].startswith("Linux ")
    assert int(described["cores"]) == os.cpu_count()


def test_a_board_lost_in_mid_run_gives_what_it_had_measured(
    measurer: SshMeasurer,
    server: Server,
    candidates: list[Candidate],
    remote_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(measurer, "_options", TimingOptions(rounds=400, min_ms=20))

    def lose_power() -> None:
        while not any(remote_folder.glob("*/measure")):
            time.sleep(0.05)
        time.sleep(2)
        server.stop()

    thread = threading.Thread(target=lose_power)
    thread.start()
    with pytest.raises(MeasurerLost, match=rf"lost ssh://{server.target}: .*check that `ssh .*` works") as lost:
        measurer.measure(candidates)
    thread.join()
    assert len(lost.value.measurements) == len(candidates)
    assert 0 < len(lost.value.measurements[0].seconds) < 400
    # the program there cannot write any more, ends, and its folder goes
    wait_until_empty(remote_folder)
    server.start()
    monkeypatch.undo()
    assert all(measurement.ok for measurement in measurer.measure(candidates[:1]))


def test_a_board_that_is_off_is_told_before_anything_is_measured(
    shared_measurer: SshMeasurer, server: Server, candidates: list[Candidate]
) -> None:
    server.stop()
    with pytest.raises(MeasurerLost, match="Connection refused") as lost:
        shared_measurer.measure(candidates)
    assert [measurement.error for measurement in lost.value.measurements] == [str(lost.value)] * 3
    with pytest.raises(MeasurerLost, match="Connection refused"):
        shared_measurer.describe()


def test_a_full_disk_is_the_batch_s_error(
    shared_measurer: SshMeasurer, server: Server, candidates: list[Candidate], remote_folder: Path
) -> None:
    # a limit on files stands in for a full disk: writing fails in the middle of the program
    server.start(largest_file_bytes=4096)
    try:
        measured = shared_measurer.measure(candidates)
    finally:
        server.stop()
    expected = f"cannot copy the measuring program to {remote_folder} on ssh://{server.target}: "
    assert all(str(measurement.error).startswith(expected) for measurement in measured)
    assert "File" in str(measured[0].error)
    assert not any(remote_folder.iterdir())


def test_a_refused_key_is_told(host: Board, server: Server) -> None:
    server.start()
    measurer = SshMeasurer(host, server.target, ssh_options=server.client("other_key"))
    try:
        with pytest.raises(MeasurerLost, match=r"Permission denied \(publickey"):
            measurer.describe()
    finally:
        measurer.close()
        server.stop()


def test_a_folder_that_is_not_there_is_told(
    measurer: SshMeasurer, candidates: list[Candidate], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measurer, "_remote_folder", "/nowhere")
    (measured,) = measurer.measure(candidates[:1])
    assert str(measured.error).startswith(f"cannot make a folder in /nowhere on {measurer._ssh.name}: ")
    assert "No such file or directory" in str(measured.error)


@pytest.mark.slow
def test_a_board_that_hangs_is_noticed_within_half_a_minute(
    measurer: SshMeasurer,
    server: Server,
    candidates: list[Candidate],
    remote_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(measurer, "_options", TimingOptions(rounds=2000, min_ms=20))
    stopped: list[psutil.Process] = []

    def freeze() -> None:
        while not any(remote_folder.glob("*/measure")):
            time.sleep(0.05)
        time.sleep(2)
        stopped.extend(server.sessions())
        for session in stopped:
            session.send_signal(signal.SIGSTOP)

    thread = threading.Thread(target=freeze)
    thread.start()
    begin = time.monotonic()
    with pytest.raises(MeasurerLost, match=r"lost ssh://.*: (it stopped answering|.*not responding.*); check"):
        measurer.measure(candidates)
    assert time.monotonic() - begin < 40
    thread.join()
    server.stop()
    wait_until_empty(remote_folder)


@pytest.mark.parametrize("target", ["", "-oProxyCommand=x", "pi@board;ls", "pi@board:port"])
def test_addresses_are_checked_before_anything_runs(host: Board, target: str) -> None:
    with pytest.raises(UserError, match="is not of the form ssh://user@host"):
        SshMeasurer(host, target)


def test_the_remote_folder_is_checked(host: Board) -> None:
    with pytest.raises(UserError, match=r"remote folder '~/x; ls' is not an absolute path"):
        SshMeasurer(host, "pi@board", remote_folder="~/x; ls")
