"""Measures a build, step by step, and holds it against what its core can do at most."""

from __future__ import annotations

import json

from edgenext_tvm.codegen.program import read_program
from edgenext_tvm.errors import UserError
from edgenext_tvm.report.host_peak import measure_host_peak
from edgenext_tvm.report.roofline import InstructionPeak, Roofline, hold_against, instructions_of_steps
from edgenext_tvm.tune.emulator import count_inference
from edgenext_tvm.verify.build_folder import LOWERED_FILE, BuildFolder
from edgenext_tvm.verify.reference import load_lowered
from edgenext_tvm.verify.runner import HostRunner


def measure_roofline(build: BuildFolder, repeat: int) -> Roofline:
    """An int8 build for this machine by time (one thread, per step the least of `repeat` inferences), one for another
    board by the instructions that its emulator counts. UserError for a float32 build or a board without an emulator.
    """
    if build.manifest.precision != "int8":
        raise UserError(
            f"{build.path} is a {build.manifest.precision} build; the roofline is that of int8 multiply-adds, so give "
            "an int8 build"
        )
    program = read_program(load_lowered(build.path / LOWERED_FILE))
    details = [layer.detail for layer in build.manifest.layers]
    if build.board.is_host:
        return hold_against(measure_host_peak(build.board), program, details, _least_step_times_us(build, repeat))
    peak = InstructionPeak.of_board(build.board)
    counts = count_inference(build.path)
    measured = instructions_of_steps([layer.function for layer in build.manifest.layers], counts.by_function)
    return hold_against(peak, program, details, measured, counts.total - sum(measured))


def _least_step_times_us(build: BuildFolder, repeat: int) -> list[float]:
    """One inference per start of the program, after its own warm-up: a mean over several would count the times at which
    another program had the core.
    """
    runner = HostRunner()
    arguments = ["--benchmark", "--profile", "--json", "--threads", "1", "--repeat", "1"]
    least = [float("inf")] * len(build.manifest.layers)
    for _ in range(repeat):
        steps = json.loads(runner.run(build.program, arguments).stdout)["profile"]["steps"]
        least = [min(known, step["us"]) for known, step in zip(least, steps, strict=True)]
    return least
