"""Runs a built program where it belongs: on this machine, under qemu-user, or on a board over ssh.

A runner takes a program, its arguments and the files that go in and come out. Files keep their names; the arguments
name them without a folder, since every run happens in a fresh folder of its own.
"""

from __future__ import annotations

import errno
import platform
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgenext_tvm.board import Board
from edgenext_tvm.errors import UserError

RUNNERS = "host, qemu, ssh://user@host[:port]"
USER_ERROR_STATUS = 2
_SSH_FAILED = 255
_CANNOT_EXECUTE = 126


@dataclass(frozen=True)
class Finished:
    """What a program left: exit status (0 or 1; others raise) and its output."""

    status: int
    stdout: str
    stderr: str


class Runner(ABC):
    """Runs programs of one board."""

    @property
    @abstractmethod
    def name(self) -> str:
        """For people: "host", "qemu-aarch64 cortex-a72", "ssh://pi@board"."""

    @abstractmethod
    def run(
        self,
        program: Path,
        arguments: Sequence[str],
        inputs: Sequence[Path] = (),
        outputs: Sequence[Path] = (),
        timeout_s: float = 3600,
    ) -> Finished:
        """Runs `program` once; afterwards each of `outputs` exists. Raises UserError when it cannot or crashes."""

    def _check(self, program: Path, status: int, stdout: str, stderr: str) -> Finished:
        if status in (0, 1):
            return Finished(status, stdout, stderr)
        message = stderr.strip() or stdout.strip() or "(no output)"
        if status == USER_ERROR_STATUS:
            raise UserError(f"on {self.name}: {message.splitlines()[-1]}")
        crash = _signal_name(status)
        if crash == "SIGILL":
            raise UserError(
                f"{program.name} on {self.name}: illegal instruction: the program was compiled for a core with more "
                "features than this one has; compile for the board that describes it"
            )
        ended = f"was ended by {crash}" if crash else f"ended with status {status}"
        raise UserError(f"{program.name} on {self.name} {ended}: {message.splitlines()[-1]}")


@dataclass(frozen=True)
class HostRunner(Runner):
    """Runs programs that were built for this machine."""

    @property
    def name(self) -> str:
        return "host"

    def run(
        self,
        program: Path,
        arguments: Sequence[str],
        inputs: Sequence[Path] = (),
        outputs: Sequence[Path] = (),
        timeout_s: float = 3600,
    ) -> Finished:
        return self._run_here([], program, arguments, inputs, outputs, timeout_s)

    def _run_here(
        self,
        emulator: Sequence[str],
        program: Path,
        arguments: Sequence[str],
        inputs: Sequence[Path],
        outputs: Sequence[Path],
        timeout_s: float,
    ) -> Finished:
        with tempfile.TemporaryDirectory(prefix="edgenext-tvm-run-") as folder:
            for path in inputs:
                (Path(folder) / path.name).symlink_to(path.resolve())
            command = [*emulator, str(program.resolve()), *arguments]
            try:
                done = subprocess.run(
                    command, cwd=folder, capture_output=True, text=True, errors="replace",
                    stdin=subprocess.DEVNULL, timeout=timeout_s, check=False,
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                raise UserError(f"{program.name} on {self.name} ran longer than {timeout_s:g} s") from None
            except OSError as error:
                if error.errno == errno.ENOEXEC:
                    raise UserError(
                        f"{program} was not built for this machine ({platform.machine()}); run it with "
                        "--runner qemu, or on its board with --runner ssh://user@host"
                    ) from None
                raise UserError(f"cannot start {command[0]}: {error.strerror}") from None
            finished = self._check(program, done.returncode, done.stdout, done.stderr)
            for path in outputs:
                made = Path(folder) / path.name
                if not made.is_file():
                    raise UserError(f"{program.name} on {self.name} did not write {path.name}")
                shutil.move(str(made), path)
            return finished


@dataclass(frozen=True)
class QemuRunner(HostRunner):
    """Runs programs under qemu-user, which emulates exactly the core that the board file names."""

    qemu: str = "qemu-aarch64"
    cpu: str = "max"

    @classmethod
    def for_board(cls, board: Board) -> QemuRunner:
        """The emulator of that board. Raises UserError when the board names none or it is not installed."""
        if board.run.qemu is None or board.run.qemu_cpu is None:
            raise UserError(
                f"board '{board.name}' names no emulator; run on --runner host or ssh://user@host, or add qemu and "
                f"qemu_cpu to [run] in {board.file}"
            )
        if shutil.which(board.run.qemu) is None:
            raise UserError(
                f"{board.run.qemu} not found; install it (Debian: qemu-user), or run on the board itself with "
                "--runner ssh://user@host"
            )
        return cls(board.run.qemu, board.run.qemu_cpu)

    @property
    def name(self) -> str:
        return f"{self.qemu} {self.cpu}"

    def run(
        self,
        program: Path,
        arguments: Sequence[str],
        inputs: Sequence[Path] = (),
        outputs: Sequence[Path] = (),
        timeout_s: float = 3600,
    ) -> Finished:
        return self._run_here([self.qemu, "-cpu", self.cpu], program, arguments, inputs, outputs, timeout_s)


@dataclass(frozen=True)
class SshRunner(Runner):
    """Copies program and inputs into a new folder on the board, runs there, fetches the outputs, removes the folder.

    Never asks for a password: the key must be set up. `options` go to ssh and scp alike.
    """

    destination: str
    port: int = 22
    options: tuple[str, ...] = ()

    @classmethod
    def from_url(cls, url: str) -> SshRunner:
        """From ssh://user@host[:port]."""
        # a leading '-' would be read as an option by ssh
        found = re.fullmatch(r"ssh://((?:[\w.][\w.-]*@)?[\w.][\w.-]*)(?::(\d{1,5}))?/?", url)
        if not found:
            raise UserError(f"'{url}' is not of the form ssh://user@host or ssh://user@host:port")
        if not 0 < int(found.group(2) or 22) < 65536:
            raise UserError(f"'{url}': port {found.group(2)} does not exist; allowed: 1 to 65535")
        for tool in ("ssh", "scp"):
            if shutil.which(tool) is None:
                raise UserError(f"{tool} not found; install it (Debian: openssh-client)")
        return cls(found.group(1), int(found.group(2) or 22))

    @property
    def name(self) -> str:
        return f"ssh://{self.destination}" + (f":{self.port}" if self.port != 22 else "")

    def ssh_command(self, remote: str) -> list[str]:
        """The local command that runs the shell line `remote` on the board."""
        return ["ssh", *self._common("-p"), self.destination, remote]

    def scp_command(self, sources: Sequence[str], target: str) -> list[str]:
        """The local command that copies; remote paths are written by `remote_path`."""
        return ["scp", "-q", *self._common("-P"), *sources, target]

    def remote_path(self, path: str) -> str:
        return f"{self.destination}:{path}"

    def _common(self, port_flag: str) -> list[str]:
        return ["-o", "BatchMode=yes", "-o", "ConnectTimeout=10", *self.options, port_flag, str(self.port)]

    def run(
        self,
        program: Path,
        arguments: Sequence[str],
        inputs: Sequence[Path] = (),
        outputs: Sequence[Path] = (),
        timeout_s: float = 3600,
    ) -> Finished:
        made = self._call(self.ssh_command("mktemp -d /tmp/edgenext-tvm-ssh-XXXXXXXX"), 60)
        folder = made.stdout.strip()
        if made.returncode != 0 or not re.fullmatch(r"/tmp/edgenext-tvm-ssh-\w+", folder):
            raise UserError(f"{self.name}: cannot make a folder in /tmp: {_last_line(made.stderr)}")
        try:
            self._copy([str(program), *map(str, inputs)], self.remote_path(f"{folder}/"))
            # `exit` keeps the shell: a signal then comes back as 128 + its number, which ssh alone would hide
            command = shlex.join([f"./{program.name}", *arguments])
            line = f"cd {folder} && chmod +x {shlex.quote(program.name)} && {command}; exit $?"
            done = self._call(self.ssh_command(line), timeout_s)
            if done.returncode == _CANNOT_EXECUTE or "Exec format error" in done.stderr:
                raise UserError(
                    f"{self.name} cannot execute {program.name}: it was built for another processor; "
                    "compile for the board that describes this one"
                )
            finished = self._check(program, done.returncode, done.stdout, done.stderr)
            for path in outputs:
                self._copy([self.remote_path(f"{folder}/{path.name}")], str(path))
            return finished
        finally:
            self._call(self.ssh_command(f"rm -rf {folder}"), 60)

    def _copy(self, sources: Sequence[str], target: str) -> None:
        done = self._call(self.scp_command(sources, target), 600)
        if done.returncode != 0:
            raise UserError(f"{self.name}: copying to {target} failed: {_last_line(done.stderr)}")

    def _call(self, command: list[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace",
                stdin=subprocess.DEVNULL, timeout=timeout_s, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise UserError(f"{self.name} did not answer within {timeout_s:g} s") from None
        if done.returncode == _SSH_FAILED:
            raise UserError(
                f"cannot reach {self.name}: {_last_line(done.stderr)}; check that "
                f"`{shlex.join(self.ssh_command('true'))}` works without a password"
            )
        return done


def choose_runner(board: Board, choice: str | None) -> Runner:
    """The runner of that name ("host", "qemu" or an ssh:// URL); None takes the one in the board file."""
    choice = choice or board.run.runner
    if choice == "host":
        return HostRunner()
    if choice == "qemu":
        return QemuRunner.for_board(board)
    if choice.startswith("ssh://"):
        return SshRunner.from_url(choice)
    if choice == "ssh":
        raise UserError(f"board '{board.name}' is reached over ssh: name it with --runner ssh://user@host")
    raise UserError(f"unknown runner '{choice}'; allowed: {RUNNERS}")


def _signal_name(status: int) -> str | None:
    number = -status if status < 0 else status - 128
    try:
        return signal.Signals(number).name
    except ValueError:
        return None


def _last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1] if lines else "(no message)"
