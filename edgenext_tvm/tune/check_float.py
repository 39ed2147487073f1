"""Whether int8 really is faster than float32: both built for the board, and measured where the database was."""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
from pathlib import Path

from edgenext_tvm.codegen.manifest import Manifest
from edgenext_tvm.compiler import CompileSettings, Stages, compile_stages
from edgenext_tvm.errors import UserError
from edgenext_tvm.source import is_program_file
from edgenext_tvm.tune.emulator import count_inference
from edgenext_tvm.tune.manifest import FloatCheck
from edgenext_tvm.tune.session import now
from edgenext_tvm.tune.tuned import TunedSchedule
from edgenext_tvm.verify.build_folder import open_build
from edgenext_tvm.verify.device import benchmark
from edgenext_tvm.verify.runner import choose_runner

ROUNDS = 5
REPEAT = 20


def check_against_float32(settings: CompileSettings, logs: Path | None, runner: str) -> FloatCheck:
    """Build `settings` in int8 (tuned by `logs`) and in float32, and measure one inference of each on one thread.

    runner: "local", "emulator" or "ssh://...". UserError if the model has no float32 form or rpc measures.
    """
    if is_program_file(settings.model):
        raise UserError("a quantized program has no float32 form to compare with")
    if runner == "rpc":
        raise UserError("whole programs are not run over rpc; use `bench` on the board, or --runner ssh://user@host")
    with tempfile.TemporaryDirectory(prefix="edgenext-tvm-check-") as folder:
        chosen = dataclasses.replace(settings, out=Path(folder) / "int8", tuning_logs=logs, max_arena_kib=None)
        int8, float32 = (
            compile_stages(each, Stages(None), quiet=True).folder
            for each in (chosen, float32_settings(chosen, Path(folder) / "float32"))
        )
        return compare_builds(int8, float32, runner)


def check_build(settings: CompileSettings, int8: Path) -> FloatCheck:
    """Compare the build in `int8`, made from `settings`, with a float32 build, on the board's own runner."""
    if settings.precision != "int8" or is_program_file(settings.model):
        raise UserError("--compare-float32 needs a variant compiled to int8: there is nothing to compare with")
    with tempfile.TemporaryDirectory(prefix="edgenext-tvm-check-") as folder:
        chosen = float32_settings(settings, Path(folder) / "float32")
        built = compile_stages(chosen, Stages(None), quiet=True).folder
        return compare_builds(int8, built, "local" if settings.board.is_host else "emulator")


def float32_settings(settings: CompileSettings, out: Path) -> CompileSettings:
    """The float32 build of the same model for the same board: without all that decides how it is quantized."""
    return dataclasses.replace(
        settings,
        precision="float32",
        out=out,
        calibration=None,
        recipe=None,
        goal=None,
        budget_images=None,
        max_arena_kib=None,
    )


def recorded_check(settings: CompileSettings, manifest: Manifest) -> FloatCheck | None:
    """The check that tuning stored for this model and size, if the build used that database and, like the build that
    was measured, holds no int16 tensors.
    """
    schedule = TunedSchedule.for_board(settings.board, settings.use_tuning, settings.tuning_logs)
    activations = manifest.recipe.get("activations", {}).values()
    if schedule.manifest is None or manifest.precision != "int8" or any(a["dtype"] == "int16" for a in activations):
        return None
    size = manifest.input_shape[1]
    found = (c for c in schedule.manifest.checks if (c.model, c.input_size) == (manifest.model, size))
    return next(found, None)


def compare_builds(int8: Path, float32: Path, runner: str) -> FloatCheck:
    """Measure one inference of two builds of one model for one board; see `check_against_float32`."""
    build = open_build(int8)
    if runner == "emulator":
        costs = [count_inference(folder).total * 1e-9 for folder in (int8, float32)]
        unit, how = "instructions", "executed instructions of one inference, not weighted"
    else:
        device = choose_runner(build.board, None if runner == "local" else runner)
        rounds: list[list[float]] = [[], []]
        for _ in range(ROUNDS):
            for times, folder in zip(rounds, (int8, float32), strict=True):
                times.append(benchmark(open_build(folder), device, 1, REPEAT).median_ms / 1000)
        costs = [statistics.median(times) for times in rounds]
        unit, how = "s", f"median of {ROUNDS} alternating rounds of {REPEAT} inferences on one thread, {device.name}"
    return FloatCheck(
        model=build.manifest.model,
        input_size=build.manifest.input_shape[1],
        int8=costs[0],
        float32=costs[1],
        unit=unit,
        how=how,
        date=now(),
    )
