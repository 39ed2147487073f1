"""Ranks candidates for an Arm board without one: the cost of the instructions that they execute under qemu-user."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgenext_tvm.board import Board
from edgenext_tvm.errors import UserError
from edgenext_tvm.tune.emulator.cost_model import CostModel, cost_model_for
from edgenext_tvm.tune.emulator.count import run_counted
from edgenext_tvm.tune.emulator.executed_blocks import ExecutedBlock, ProgramCode, split_at_marks
from edgenext_tvm.tune.measure import Candidate, Measurement
from edgenext_tvm.tune.measure_program import BatchBuilder, Ended, TimingOptions, measure_times
from edgenext_tvm.tune.measure_program.build_batch import BUILD_LIMIT_S, name_of
from edgenext_tvm.tune.measure_program.run_batch import Lines, how_it_ended
from edgenext_tvm.verify.runner import QemuRunner

_MARK = "enx_mark"
COST_UNIT = 1e-9
"""A measurement's `seconds` are costs times this."""


class EmulatorMeasurer:
    """Counts, with a cost by class of instruction, what candidates execute on the core that the board's qemu emulates.

    cost_model     default: the weights of the board's core, or a plain count where there are none
    limit_ms       processor time of the emulator after which a candidate is given up as hung
    build_workers  processes that compile; default: one for each processor but one, at least one
    Equal candidates have equal costs, on any machine: one number a candidate, without noise.
    """

    name = "emulator"
    unit = "instructions"
    parallel = 1

    def __init__(
        self,
        board: Board,
        cost_model: CostModel | None = None,
        limit_ms: int = 20_000,
        build_workers: int | None = None,
        build_limit_s: float = BUILD_LIMIT_S,
    ) -> None:
        """UserError if the board names no emulator, or it is not installed."""
        self._runner = QemuRunner.for_board(board)
        self._cost_model = cost_model or cost_model_for(board)
        self._options = TimingOptions(rounds=1, limit_ms=limit_ms)
        self._builder = BatchBuilder(board, build_workers, build_limit_s)

    def describe(self) -> dict[str, Any]:
        """See Measurer.describe."""
        version = subprocess.run([self._runner.qemu, "--version"], capture_output=True, text=True, check=False)
        return {
            "measurer": self.name,
            "unit": self.unit,
            "meaning": "emulated: weighted executed instructions, not time",
            "emulator": f"{self._runner.name}, {version.stdout.partition(chr(10))[0]}",
            **self._cost_model.describe(),
        }

    def measure(self, batch: Sequence[Candidate]) -> list[Measurement]:
        """See Measurer.measure."""
        return measure_times(self._builder, batch, self._execute, self._options)

    def executed(self, candidate: Candidate) -> list[ExecutedBlock]:
        """What one call of `candidate` executes, for reports and cost models. UserError if it cannot be run."""
        built = self._builder.build([candidate])
        if built.program is None:
            raise UserError(built.errors[0])
        ran = run_counted(self._runner, built.program, ["--once", *self._options.arguments()], _MARK)
        lines = Lines()
        lines.add(ran.stdout)
        if lines.once != [0]:
            raise UserError(lines.failed.get(0, how_it_ended(ran.status) or "the program ended early"))
        return split_at_marks(ran.blocks, ProgramCode(built.program))[1]

    def notes(self) -> Sequence[str]:
        """See Measurer.notes."""
        return (f"emulated: weighted instructions of {self._runner.name}, not time",)

    def close(self) -> None:
        """See Measurer.close."""
        self._builder.close()

    def _execute(self, program: Path, arguments: Sequence[str], limit_s: float) -> Ended:
        """Run each candidate once; a line "NAME 0 COST" for each that ended is added to what the program says."""
        try:
            ran = run_counted(self._runner, program, ["--once", *arguments], _MARK, limit_s)
        except subprocess.TimeoutExpired as expired:
            return Ended((expired.stdout or b"").decode(errors="replace"), f"did not end within {limit_s:g} s")
        lines = Lines()
        lines.add(ran.stdout)
        if not lines.complete:
            return Ended(ran.stdout, how_it_ended(ran.status))
        # the code between a candidate's two marks is what it executed, so every other segment is one's
        segments = split_at_marks(ran.blocks, ProgramCode(program))[1::2]
        costs = [
            f"{name_of(index)} 0 {COST_UNIT * self._cost_model.cost(blocks):.12g}\n"
            for index, blocks in zip(lines.begun, segments, strict=True)
            if index in lines.once
        ]
        return Ended("".join(costs) + ran.stdout, how_it_ended(ran.status))
