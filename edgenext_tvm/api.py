"""The library's front door: compile, verify, run and benchmark, each one call. The command line is thin over it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from edgenext_tvm.board import Board, load_board
from edgenext_tvm.budget.meet_budget import make_goal
from edgenext_tvm.codegen.manifest import Manifest
from edgenext_tvm.compiler import CompileSettings, Progress, Stages, compile_stages
from edgenext_tvm.errors import UserError
from edgenext_tvm.quantize.images import decode_image
from edgenext_tvm.report.measure_roofline import measure_roofline
from edgenext_tvm.report.roofline import Roofline
from edgenext_tvm.source import model_identifier
from edgenext_tvm.tune.check_float import check_build, recorded_check
from edgenext_tvm.tune.emulator import InstructionCounts, count_inference
from edgenext_tvm.tune.front import TuneResult, TuneSettings, tune
from edgenext_tvm.tune.manifest import FloatCheck
from edgenext_tvm.verify.build_folder import open_build
from edgenext_tvm.verify.device import Timing, benchmark, classify, profile, selftest
from edgenext_tvm.verify.runner import Runner, choose_runner
from edgenext_tvm.verify.verify import VerifyReport, verify

__all__ = [
    "CompileResult",
    "TuneResult",
    "VerifyReport",
    "bench_build",
    "compile_model",
    "count_build",
    "profile_build",
    "roofline_build",
    "run_build",
    "tune_model",
    "verify_build",
]

MAX_THREADS = 16
DEFAULT_REPEAT = 50


@dataclass(frozen=True)
class CompileResult:
    """What compile_model built. stages: seconds per stage. selftest: None where the board cannot be run from here.

    float_check: int8 against float32, recorded when the board's kernels were tuned or measured now; see its origin.
    """

    build_dir: Path
    board: Board
    manifest: Manifest
    stages: dict[str, float]
    selftest: bool | None
    float_check: FloatCheck | None = None
    float_check_origin: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The fields of `compile --json`."""
        manifest = self.manifest
        return {
            "model": manifest.model,
            "board": self.board.name,
            "build_dir": str(self.build_dir),
            "precision": manifest.precision,
            "input_shape": list(manifest.input_shape),
            "num_classes": manifest.num_classes,
            "arena_bytes": manifest.arena_bytes,
            "flash_bytes": manifest.flash_bytes,
            "constant_bytes": manifest.constant_bytes,
            "madds": manifest.macs,
            "kernels": manifest.distinct_kernels,
            "kernel_calls": manifest.kernel_calls,
            "selftest": self.selftest,
            "stages": self.stages,
            "tuning": manifest.tuning.model_dump(mode="json"),
            "float_check": _check_fields(self.float_check, self.float_check_origin),
        }


def _check_fields(check: FloatCheck | None, origin: str) -> dict[str, Any] | None:
    return None if check is None else {**check.model_dump(mode="json"), "speedup": check.speedup, "origin": origin}


def compile_model(
    model: str,
    board: str | Path | Board = "host",
    *,
    checkpoint: str | Path | None = None,
    num_classes: int | None = None,
    input_size: int | None = None,
    calibration: str | Path | None = None,
    recipe: str | Path | None = None,
    precision: str = "int8",
    threads: int = 1,
    max_arena_kib: int | None = None,
    tuning: bool = True,
    tuning_logs: str | Path | None = None,
    compare_float32: bool = False,
    sqnr_budget: float | None = None,
    accuracy_budget: float | None = None,
    budget_images: str | Path | None = None,
    out: str | Path | None = None,
    progress: Progress | None = None,
    quiet: bool = True,
) -> CompileResult:
    """Compiles a variant, a .pt2 or an .onnx program into a build folder and lets it test itself.

    tuning: use the board's tuning database, or the one in tuning_logs; one that does not fit is refused with a reason
    in the manifest's `tuning`. compare_float32: also build and time float32, see CompileResult.float_check.
    sqnr_budget, accuracy_budget: store as int16 the cheapest tensors with which the logits reach so many dB, or lose at
    most so many points of top-1, on budget_images (default: those of calibration); what each bought is in budget.json.
    board: a name, a folder, or a Board. out: default out/MODEL-BOARD. threads: of the self-test.
    progress: called after each stage. Raises UserError for every mistake of the caller; a failed compilation leaves an
    earlier build at `out` as it was.
    """
    chosen = board if isinstance(board, Board) else load_board(board)
    _check_threads(threads)
    settings = CompileSettings(
        model=model,
        board=chosen,
        out=Path(out) if out is not None else default_out(model, chosen),
        checkpoint=None if checkpoint is None else str(checkpoint),
        num_classes=num_classes,
        input_size=input_size,
        calibration=None if calibration is None else str(calibration),
        recipe=None if recipe is None else Path(recipe),
        precision=precision,
        max_arena_kib=max_arena_kib,
        use_tuning=tuning,
        tuning_logs=None if tuning_logs is None else Path(tuning_logs),
        goal=make_goal(sqnr_budget, accuracy_budget),
        budget_images=None if budget_images is None else str(budget_images),
    )
    stages = Stages(progress)
    built = compile_stages(settings, stages, quiet)
    with stages.stage("selftest") as done:
        passed = _selftest_if_possible(built.folder, chosen, threads, done)
    check, origin = recorded_check(settings, built.manifest), "from the tuning database"
    if compare_float32:
        with stages.stage("float32") as done:
            check, origin = check_build(settings, built.folder), "measured now"
            done.append(f"{check.speedup:.2f} times int8's {check.unit}")
    return CompileResult(built.folder, chosen, built.manifest, stages.seconds, passed, check, origin if check else "")


def tune_model(
    model: str,
    board: str | Path | Board = "host",
    *,
    checkpoint: str | Path | None = None,
    num_classes: int | None = None,
    input_size: int | None = None,
    runner: str | None = None,
    trials: int | None = None,
    time_budget_min: float | None = None,
    tracker: str | None = None,
    key: str | None = None,
    resume: bool = False,
    log_dir: str | Path | None = None,
    check_float32: bool = True,
    console: Console | None = None,
    progress: Progress | None = None,
    begin: Callable[[Path], None] | None = None,
) -> TuneResult:
    """Tunes the kernels of a model on a board and puts what was measured into a database that `compile_model` finds.

    runner: "local", "emulator", "rpc" or "ssh://user@host[:port]". trials: per kernel. console: shows the progress.
    begin: called with the database's folder before any work. Raises UserError for every mistake of the caller.
    """
    chosen = board if isinstance(board, Board) else load_board(board)
    settings = CompileSettings(
        model=model,
        board=chosen,
        out=default_out(model, chosen),
        checkpoint=None if checkpoint is None else str(checkpoint),
        num_classes=num_classes,
        input_size=input_size,
    )
    return tune(
        TuneSettings(
            model=settings,
            runner=runner,
            trials=trials,
            time_budget_min=time_budget_min,
            tracker=tracker,
            key=key,
            resume=resume,
            log_dir=None if log_dir is None else Path(log_dir),
            check_float32=check_float32,
        ),
        console or Console(quiet=True),
        progress,
        begin,
    )


def default_out(model: str, board: Board) -> Path:
    """Where a build goes that was not given a folder."""
    return Path("out") / f"{model_identifier(model)}-{board.name}"


def _selftest_if_possible(folder: Path, board: Board, threads: int, done: list[str]) -> bool | None:
    try:
        runner = choose_runner(board, None)
    except UserError as error:
        done.append(f"not run: {error}")
        return None
    passed = selftest(open_build(folder), runner, threads)
    done.append(f"{'PASS' if passed else 'FAIL'} on {runner.name}")
    return passed


def verify_build(
    build_dir: str | Path,
    images: str | Path | None = None,
    *,
    limit: int | None = None,
    runner: str | Runner | None = None,
    progress: Any = None,
) -> VerifyReport:
    """Compares a build with float, QDQ, the NumPy twins and the host's build; see VerifyReport."""
    return verify(build_dir, images, runner, limit, progress=progress)


def run_build(
    build_dir: str | Path,
    images: Sequence[str | Path],
    *,
    top: int = 5,
    threads: int = 1,
    runner: str | Runner | None = None,
) -> list[dict[str, Any]]:
    """Classifies image files of any format that Pillow reads: per image {"file", "top": best classes first}."""
    _check_threads(threads)
    if not images:
        raise UserError("no image given; give one or more image files")
    build = open_build(build_dir)
    if not 1 <= top <= build.manifest.num_classes:
        raise UserError(f"top is {top}; allowed: 1 to {build.manifest.num_classes}, the number of classes")
    if build.manifest.preprocessing is None:
        raise UserError(
            f"{build.path} was compiled from a program without preprocessing: it cannot take images; give its program "
            f"{build.program} the network's input as .npy"
        )
    device = runner if isinstance(runner, Runner) else choose_runner(build.board, runner)
    pixels = [_read_image(Path(path)) for path in images]
    answers = classify(build, device, pixels, top, threads)
    return [{"file": str(path), "top": answer} for path, answer in zip(images, answers, strict=True)]


def _read_image(path: Path) -> Any:
    try:
        encoded = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read image {path}: {error.strerror}") from None
    return decode_image(encoded, str(path))


def bench_build(
    build_dir: str | Path,
    *,
    threads: int = 1,
    repeat: int = DEFAULT_REPEAT,
    runner: str | Runner | None = None,
) -> Timing:
    """Median and least time of single inferences. Under an emulator the numbers say nothing about the board."""
    _check_threads(threads)
    _check_repeat(repeat)
    build = open_build(build_dir)
    device = runner if isinstance(runner, Runner) else choose_runner(build.board, runner)
    return benchmark(build, device, threads, repeat)


def profile_build(
    build_dir: str | Path,
    *,
    threads: int = 1,
    repeat: int = DEFAULT_REPEAT,
    runner: str | Runner | None = None,
) -> dict[str, Any]:
    """Time per step and per layer: {"runs", "total_us", "steps", "layers"}."""
    _check_threads(threads)
    _check_repeat(repeat)
    build = open_build(build_dir)
    device = runner if isinstance(runner, Runner) else choose_runner(build.board, runner)
    return profile(build, device, threads, repeat)


def count_build(build_dir: str | Path) -> InstructionCounts:
    """Instructions of one inference under the board's emulator: exact and repeatable, and not milliseconds."""
    return count_inference(build_dir)


def roofline_build(build_dir: str | Path, *, repeat: int = DEFAULT_REPEAT) -> Roofline:
    """Every layer's floor, what it took and the gap: time on this machine, instructions for an emulated board."""
    _check_repeat(repeat)
    return measure_roofline(open_build(build_dir), repeat)


def _check_threads(threads: int) -> None:
    if not 1 <= threads <= MAX_THREADS:
        raise UserError(f"threads is {threads}; allowed: 1 to {MAX_THREADS} (this machine has {os.cpu_count()} CPUs)")


def _check_repeat(repeat: int) -> None:
    if not 1 <= repeat <= 1_000_000:
        raise UserError(f"repeat is {repeat}; allowed: 1 to 1000000")
