"""Measures candidates on this machine, on one core, one thread."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgenext_tvm.board import Board
from edgenext_tvm.errors import UserError
from edgenext_tvm.tune.machine_state import SCRIPT, parse_state
from edgenext_tvm.tune.measure import Candidate, Measurement
from edgenext_tvm.tune.measure_program import BatchBuilder, Ended, TimingOptions, measure_times
from edgenext_tvm.tune.measure_program.build_batch import BUILD_LIMIT_S
from edgenext_tvm.tune.measure_program.run_batch import how_it_ended


class LocalMeasurer:
    """Times candidates of a board whose programs run on this machine.

    options        rounds and their length; without a core, the last one that this process may use is taken
    build_workers  processes that compile; default: one for each processor but one, at least one
    """

    name = "local"
    unit = "s"
    parallel = 1

    def __init__(
        self,
        board: Board,
        options: TimingOptions | None = None,
        build_workers: int | None = None,
        build_limit_s: float = BUILD_LIMIT_S,
    ) -> None:
        """UserError if the board's programs do not run here or its compiler is missing."""
        if not board.is_host:
            raise UserError(
                f"board '{board.name}' is not this machine, so its kernels cannot be timed here; measure with "
                "--runner ssh or rpc on the board, or with --runner emulator"
            )
        options = options or TimingOptions()
        if options.core is None:
            options = dataclasses.replace(options, core=max(os.sched_getaffinity(0)))
        self._options = options
        self._builder = BatchBuilder(board, build_workers, build_limit_s)

    def describe(self) -> dict[str, Any]:
        """See Measurer.describe."""
        state = subprocess.run(["sh", "-c", SCRIPT], capture_output=True, text=True, check=False)
        return {
            "measurer": self.name,
            "unit": self.unit,
            "timing": dataclasses.asdict(self._options),
            **parse_state(state.stdout),
        }

    def measure(self, batch: Sequence[Candidate]) -> list[Measurement]:
        """See Measurer.measure."""
        return measure_times(self._builder, batch, run_here, self._options)

    def notes(self) -> Sequence[str]:
        """See Measurer.notes."""
        return ()

    def close(self) -> None:
        """See Measurer.close."""
        self._builder.close()


def run_here(program: Path, arguments: Sequence[str], limit_s: float) -> Ended:
    """Run a program of this machine; it is ended after `limit_s`."""
    command = [str(program), *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, timeout=limit_s,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as expired:
        return Ended((expired.stdout or b"").decode(errors="replace"), f"did not end within {limit_s:g} s")
    except OSError as error:
        raise UserError(f"cannot start {command[0]}: {error.strerror}; may programs be run from its folder?") from None
    return Ended(done.stdout, how_it_ended(done.returncode))
