"""Measures candidates on a board over ssh: no Python there, only a shell; a static program a batch goes and leaves."""

from __future__ import annotations

import dataclasses
import re
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from edgenext_tvm.board import Board
from edgenext_tvm.errors import UserError
from edgenext_tvm.tune.machine_state import SCRIPT, parse_state
from edgenext_tvm.tune.measure import Candidate, Measurement, MeasurerLost
from edgenext_tvm.tune.measure_program import BatchBuilder, Ended, TimingOptions, measure_times
from edgenext_tvm.tune.measure_program.build_batch import BUILD_LIMIT_S
from edgenext_tvm.tune.measure_program.run_batch import DeviceLost, how_it_ended
from edgenext_tvm.verify.runner import SshRunner

_SSH_FAILED, _CANNOT_EXECUTE, _TIMED_OUT = 255, 126, 124
_NO_FOLDER, _NO_COPY = 97, 98
_SHORT_S = 60.0
_COPY_S = 60.0
# a board that hangs or loses its network is noticed within 15 s
_KEEP_ALIVE = ("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3")


class SshMeasurer:
    """Times candidates on the board at `target`: user@host, user@host:port or ssh://user@host:port.

    ssh_options    passed to ssh, such as ("-i", "key")
    remote_folder  where the program may be written and run
    build_workers  processes that compile here; default: one for each processor but one, at least one
    Never asks for a password: the key must be set up.
    """

    name = "ssh"
    unit = "s"
    parallel = 1

    def __init__(
        self,
        board: Board,
        target: str,
        options: TimingOptions | None = None,
        build_workers: int | None = None,
        build_limit_s: float = BUILD_LIMIT_S,
        ssh_options: Sequence[str] = (),
        remote_folder: str = "/tmp",
    ) -> None:
        """UserError if `target` is no such name, or a local tool is missing. Does not connect yet."""
        url = target if target.startswith("ssh://") else f"ssh://{target}"
        runner = SshRunner.from_url(url)
        if not re.fullmatch(r"/[\w./-]*", remote_folder):
            raise UserError(
                f"remote folder '{remote_folder}' is not an absolute path of letters, digits, '_', '-', '.'"
            )
        self._ssh = dataclasses.replace(runner, options=(*ssh_options, *_KEEP_ALIVE))
        self._remote_folder = remote_folder.rstrip("/")
        self._options = options or TimingOptions()
        self._builder = BatchBuilder(board, build_workers, build_limit_s)

    def describe(self) -> dict[str, Any]:
        """See Measurer.describe."""
        try:
            state = self._shell(SCRIPT, _SHORT_S)
        except DeviceLost as lost:
            raise MeasurerLost(str(lost)) from None
        return {
            "measurer": self.name,
            "unit": self.unit,
            "target": self._ssh.name,
            "timing": dataclasses.asdict(self._options),
            **parse_state(state.stdout),
        }

    def measure(self, batch: Sequence[Candidate]) -> list[Measurement]:
        """See Measurer.measure."""
        return measure_times(self._builder, batch, self._run, self._options)

    def notes(self) -> Sequence[str]:
        """See Measurer.notes."""
        return ()

    def close(self) -> None:
        """See Measurer.close."""
        self._builder.close()

    def _run(self, program: Path, arguments: Sequence[str], limit_s: float) -> Ended:
        # one connection a batch; the board removes the folder itself, also when the connection breaks,
        # and ends the program itself, or it would go on and disturb what follows
        line = f"""\
folder=$(mktemp -d {self._remote_folder}/edgenext-tvm-measure-XXXXXXXX) || exit {_NO_FOLDER}
trap 'cd / && rm -rf "$folder"' EXIT
trap 'exit 129' HUP INT TERM
cd "$folder" && cat > measure && chmod +x measure || exit {_NO_COPY}
limit=; command -v timeout > /dev/null && limit='timeout -k 5 {limit_s:.0f}'
$limit {shlex.join(["./measure", *arguments])} < /dev/null
exit $?"""
        with program.open("rb") as content:
            done = self._shell(line, limit_s + _COPY_S, content)
        return Ended(done.stdout, self._how_it_ended(done, limit_s))

    def _how_it_ended(self, done: subprocess.CompletedProcess[str], limit_s: float) -> str | None:
        status, where = done.returncode, self._ssh.name
        last = _last_line(done.stderr)
        if status == 0:
            return None
        if status == _NO_FOLDER:
            return f"cannot make a folder in {self._remote_folder} on {where}: {last}"
        if status == _NO_COPY:
            return f"cannot copy the measuring program to {self._remote_folder} on {where}: {last}"
        if status == _TIMED_OUT:
            return f"did not end within {limit_s:.0f} s on {where}"
        if status == _CANNOT_EXECUTE:
            return f"{where} cannot execute the program: it was built for another processor; check --board"
        return f"{how_it_ended(128 - status if 128 < status < 160 else status)} on {where}: {last}"

    def _shell(self, line: str, limit_s: float, stdin: IO[bytes] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a shell line on the board. DeviceLost, with the output so far, if the connection fails or hangs."""
        command = self._ssh.ssh_command(line)
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", stdin=stdin or subprocess.DEVNULL,
                timeout=limit_s, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as expired:
            arrived = (expired.stdout or b"").decode(errors="replace")
            raise DeviceLost(f"lost {self._ssh.name}: it did not answer within {limit_s:.0f} s", arrived) from None
        if done.returncode == _SSH_FAILED:
            raise DeviceLost(
                f"lost {self._ssh.name}: {_last_line(done.stderr, 'it stopped answering')}; check that "
                f"`{shlex.join(self._ssh.ssh_command('true'))}` works without a password",
                done.stdout,
            )
        return done


def _last_line(text: str, otherwise: str = "(no message)") -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else otherwise
