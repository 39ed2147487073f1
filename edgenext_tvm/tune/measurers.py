"""The measurer that a user's --runner means for a board."""

from __future__ import annotations

from edgenext_tvm.board import Board
from edgenext_tvm.errors import UserError
from edgenext_tvm.tune.measure import Measurer

RUNNERS = "local, emulator, rpc, ssh://user@host[:port]"
SSH = "ssh://"


def runner_for(board: Board, runner: str | None) -> str:
    """The runner's full name: by default local on the host, else emulator. UserError if it is unknown."""
    if runner is None:
        return "local" if board.is_host else "emulator"
    if runner == "ssh":
        raise UserError("--runner ssh needs the board's address: --runner ssh://user@host[:port]")
    if runner in ("local", "emulator", "rpc") or runner.startswith(SSH):
        return runner
    raise UserError(f"unknown runner '{runner}'; allowed: {RUNNERS}")


def open_measurer(board: Board, runner: str, tracker: str | None = None, key: str | None = None) -> Measurer:
    """The measurer of a name from `runner_for`. UserError if it cannot measure this board or an option is missing."""
    if runner != "rpc" and (tracker is not None or key is not None):
        raise UserError(f"--tracker and --key belong to --runner rpc, not to {runner}; remove them")
    if runner == "local":
        from edgenext_tvm.tune.local import LocalMeasurer

        return LocalMeasurer(board)
    if runner == "emulator":
        if board.is_host:
            raise UserError("--runner emulator counts for another board, this machine can be timed: use --runner local")
        from edgenext_tvm.tune.emulator import EmulatorMeasurer

        return EmulatorMeasurer(board)
    if runner.startswith(SSH):
        from edgenext_tvm.tune.ssh import SshMeasurer

        measurer = SshMeasurer(board, runner)
        try:
            # a board that is off is told before minutes are spent on a model
            measurer.describe()
        except UserError:
            measurer.close()
            raise
        return measurer
    if tracker is None:
        raise UserError(
            "--runner rpc needs --tracker HOST:PORT; start one with `python -m tvm.exec.rpc_tracker --host 0.0.0.0 "
            "--port 9190`"
        )
    from edgenext_tvm.tune.rpc import RpcMeasurer

    return RpcMeasurer(board, tracker, key or board.name)
