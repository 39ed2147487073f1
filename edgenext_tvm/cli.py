"""The command `edgenext-tvm`: boards, models, quantize, compile, tune, verify, run, bench.

Results on stdout, progress on stderr. With --json stdout carries one JSON object and nothing else. A user's mistake
is one error and exit status 2.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
import warnings
from typing import Any

import click
from rich.console import Console

from edgenext_tvm.commands.accuracy import accuracy_command
from edgenext_tvm.commands.finetune import finetune_command
from edgenext_tvm.commands.quantize import quantize_command
from edgenext_tvm.errors import UserError
from edgenext_tvm.report import tables, tuning_tables

USER_ERROR_STATUS = 2
NOT_VERIFIED_STATUS = 1
INTERRUPTED_STATUS = 130

errors = Console(stderr=True, soft_wrap=True, highlight=False)
output = Console(soft_wrap=True, highlight=False)

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout, nothing else.")
runner_option = click.option(
    "--runner", metavar="R", help="host, qemu or ssh://user@host[:port]; default: the board's own."
)
threads_option = click.option("--threads", type=int, default=1, show_default=True, help="1 to 16.")


def main() -> None:
    """Runs the command line; the process ends with its status."""
    _silence_imports()
    # ends like an exception, so that what was being written is removed
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    arguments = sys.argv[1:]
    try:
        status = cli.main(args=arguments, prog_name="edgenext-tvm", standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(USER_ERROR_STATUS)
    except click.ClickException as error:
        hint = f"; try `{error.ctx.command_path} --help`" if isinstance(error, click.UsageError) and error.ctx else ""
        sys.exit(_fail(error.format_message().rstrip(".") + hint, "--json" in arguments))
    except UserError as error:
        sys.exit(_fail(str(error), "--json" in arguments))
    except OSError as error:
        # a full disk, a folder without permission: nothing that a traceback would explain better
        where = f" {error.filename}" if error.filename else ""
        sys.exit(_fail(f"cannot use{where}: {error.strerror or error}", "--json" in arguments))
    sys.exit(status if isinstance(status, int) else 0)


def _fail(message: str, as_json: bool) -> int:
    errors.print(f"error: {message}", markup=False)
    if as_json:
        click.echo(json.dumps({"error": message}))
    return USER_ERROR_STATUS


def _silence_imports() -> None:
    # torch and torchao report on import what they could not find; nothing that a user of this command can act on
    warnings.filterwarnings("ignore")
    for name in ("torch", "torchao"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _progress(stage: str, seconds: float, done: str) -> None:
    errors.print(f"{stage:<9} {seconds:7.2f} s  {done}", markup=False)


def _settings(title: str, values: dict[str, Any]) -> None:
    errors.print(f"[bold]{title}[/bold]")
    for key, value in values.items():
        if value is not None:
            errors.print(f"  {key:<12} {value}", markup=False)


def _emit(result: dict[str, Any]) -> None:
    click.echo(json.dumps(result))


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="edgenext-tvm", prog_name="edgenext-tvm")
def cli() -> None:
    """Compiles EdgeNeXt into a self-contained int8 C library for an ARM board or this machine."""


@cli.command()
@json_option
def boards(as_json: bool) -> None:
    """Lists the boards that --board takes by name."""
    from edgenext_tvm.board import TARGETS_ENV, board_files, load_board
    from edgenext_tvm.paths import TARGETS

    found = [load_board(file) for file in board_files().values()]
    if as_json:
        _emit({"boards": [{**board.model_dump(mode="json"), "file": str(board.file)} for board in found]})
        return
    output.print(tables.boards(found))
    output.print(f"Add one: copy a folder of {TARGETS}, then --board FOLDER, or set ${TARGETS_ENV}.", markup=False)


@cli.command()
@json_option
def models(as_json: bool) -> None:
    """Lists the variants that compile takes by name."""
    from edgenext_tvm.model.checkpoint import bundled_checkpoint
    from edgenext_tvm.model.config import VARIANTS
    from edgenext_tvm.model.edgenext import build_model
    from edgenext_tvm.model.madds import count_madds

    rows = []
    for name in VARIANTS:
        model = build_model(name, seed=0)
        bundled = bundled_checkpoint(name)
        rows.append(
            {
                "model": name,
                "parameters": sum(value.numel() for value in model.parameters()),
                "madds_256": count_madds(model, (1, 3, 256, 256)).total,
                "bundled_checkpoint": bundled.name if bundled else None,
            }
        )
    if as_json:
        _emit({"models": rows})
        return
    output.print(tables.models(rows))


@cli.command("compile")
@click.argument("model")
@click.option("--board", metavar="B", default="host", show_default=True, help="Name, folder or board.toml.")
@click.option("--checkpoint", metavar="F", help="Weights: .safetensors, .pth, .pt, or random[:SEED].")
@click.option("--num-classes", type=int, help="Default: the checkpoint's.")
@click.option("--input-size", type=int, help="Pixels a side, a multiple of 32; default: the checkpoint's, else 256.")
@click.option("--calibration", metavar="DIR|NPZ|synthetic[:N]", help="Images to calibrate on.")
@click.option("--recipe", metavar="F", help="A recipe.json of an earlier build, instead of calibration.")
@click.option("--precision", default="int8", show_default=True, help="int8 or float32.")
@threads_option
@click.option("--max-arena-kib", type=int, help="Refuse to build when more RAM is needed.")
@click.option("--tuning/--no-tuning", default=True, help="Use the board's tuning database, if there is one.")
@click.option("--tuning-logs", metavar="DIR", help="A tuning database other than the board's.")
@click.option("--compare-float32", is_flag=True, help="Also build float32, and time both.")
@click.option("--sqnr-budget", type=float, metavar="DB", help="int16 where needed for such logits (34: error 2 %).")
@click.option("--accuracy-budget", type=float, metavar="POINTS", help="int16 where needed to lose so little top-1.")
@click.option("--budget-images", metavar="DIR|NPZ|synthetic[:N]", help="To judge a budget; default: of calibration.")
@click.option("--out", metavar="DIR", help="Build folder; default: out/MODEL-BOARD.")
@json_option
def compile_command(model: str, board: str, out: str | None, as_json: bool, **options: Any) -> int:
    """Compiles MODEL: a variant (see `models`), a quantized .pt2 program, or an .onnx QDQ file."""
    from edgenext_tvm.api import compile_model, default_out
    from edgenext_tvm.board import load_board
    from edgenext_tvm.report.budget_tables import budget_table, read_budget

    chosen = load_board(board)
    out = out or str(default_out(model, chosen))
    _settings(
        "compile",
        {"model": model, "board": f"{chosen.name} ({chosen.cpu.core}, {chosen.isa})", "out": out}
        | {key.replace("_", "-"): value for key, value in options.items() if value is not False},
    )
    result = compile_model(model, chosen, out=out, progress=_progress, quiet=as_json, **options)
    if as_json:
        _emit(result.to_dict())
    else:
        output.print(tables.compiled(result))
        output.print(tables.files(result.build_dir, result.manifest.name))
        if (fields := read_budget(result.build_dir)) is not None:
            output.print(budget_table(fields))
    if result.manifest.tuning.refused:
        errors.print(f"warning: not tuned: the database {result.manifest.tuning.refused}", markup=False)
    _warn_if_slower(result.float_check)
    return NOT_VERIFIED_STATUS if result.selftest is False else 0


@cli.command("tune")
@click.argument("model")
@click.option("--board", metavar="B", default="host", show_default=True, help="Name, folder or board.toml.")
@click.option("--runner", metavar="R", help="local, emulator, rpc or ssh://user@host[:port]; default: the board's own.")
@click.option("--checkpoint", metavar="F", help="Weights: .safetensors, .pth, .pt, or random[:SEED].")
@click.option("--num-classes", type=int, help="Default: the checkpoint's.")
@click.option("--input-size", type=int, help="Pixels a side, a multiple of 32; default: the checkpoint's, else 256.")
@click.option("--trials", type=int, help="New points to measure per kernel; default: 32, or all in the time budget.")
@click.option("--time-budget", "time_budget_min", type=float, metavar="MIN", help="Minutes for all kernels.")
@click.option("--tracker", metavar="HOST:PORT", help="Of --runner rpc.")
@click.option("--key", metavar="K", help="Of --runner rpc: the boards' key; default: the board's name.")
@click.option("--resume", is_flag=True, help="Go on with the rest of an unfinished session's budget.")
@click.option("--log-dir", metavar="DIR", help="The database's folder; default: tuning_logs/BOARD.")
@click.option("--check-float32/--no-check-float32", default=True, help="Compare with float32 at the end.")
@json_option
def tune_command(model: str, board: str, as_json: bool, **options: Any) -> int:
    """Tunes MODEL's kernels on a board, for compile to use; points already measured are not measured again."""
    from edgenext_tvm.api import tune_model
    from edgenext_tvm.board import load_board

    chosen = load_board(board)

    def begin(folder: Any) -> None:
        shown = {"model": model, "board": f"{chosen.name} ({chosen.cpu.core}, {chosen.isa})", "log-dir": folder}
        given = {key.replace("_", "-"): value for key, value in options.items() if key != "log_dir"}
        _settings("tune", shown | {key: value for key, value in given.items() if value is not False})

    result = tune_model(model, chosen, console=errors, progress=_progress, begin=begin, **options)
    if result.outcome is None:
        errors.print(f"error: {result.failed}", markup=False)
        if as_json:
            _emit({"error": result.failed})
        return NOT_VERIFIED_STATUS
    if as_json:
        _emit(tuning_tables.tuned_fields(result))
    else:
        output.print(tuning_tables.tuned(result.outcome))
        output.print(tuning_tables.tuned_summary(result))
    _warn_if_slower(result.check)
    return INTERRUPTED_STATUS if result.interrupted else 0


def _warn_if_slower(check: Any) -> None:
    if check is not None and check.speedup < 1:
        errors.print(
            f"WARNING: int8 is SLOWER than float32 here: {1 / check.speedup:.2f} times the {check.unit} ({check.how})",
            style="bold red",
            markup=False,
        )


@cli.command("verify")
@click.argument("build")
@click.option("--images", metavar="DIR|NPZ|synthetic[:N]", help="Default: a few made-up images.")
@click.option("--limit", type=int, help="Use at most this many images.")
@runner_option
@json_option
def verify_command(build: str, images: str | None, limit: int | None, runner: str | None, as_json: bool) -> int:
    """Compares BUILD with the float model, with its NumPy twins and with the host; exit status 1 if bits differ."""
    from edgenext_tvm.api import verify_build

    _settings("verify", {"build": build, "images": images, "limit": limit, "runner": runner})
    report = verify_build(
        build, images, limit=limit, runner=runner, progress=lambda line: errors.print(f"  {line}", markup=False)
    )
    if as_json:
        _emit(report.to_dict())
    else:
        output.print(tables.verified(report))
        for note in report.notes:
            output.print(f"note: {note}", markup=False)
    return 0 if report.passed else NOT_VERIFIED_STATUS


@cli.command("run")
@click.argument("build")
@click.argument("images", nargs=-1, metavar="IMAGE...", required=True)
@click.option("--top", type=int, default=5, show_default=True, help="Classes per image.")
@threads_option
@runner_option
@json_option
def run_command(build: str, images: tuple[str, ...], top: int, threads: int, runner: str | None, as_json: bool) -> None:
    """Classifies IMAGEs of any format that Pillow reads with the program in BUILD."""
    from edgenext_tvm.api import run_build

    results = run_build(build, images, top=top, threads=threads, runner=runner)
    if as_json:
        _emit({"build_dir": build, "images": results})
    else:
        output.print(tables.classified(results))


@cli.command("bench")
@click.argument("build")
@threads_option
@click.option("--repeat", type=int, default=50, show_default=True, help="Inferences to time.")
@click.option("--profile", is_flag=True, help="Also the time of every layer.")
@click.option("--instructions", is_flag=True, help="Count instructions under the emulator instead.")
@click.option("--roofline", "show_roofline", is_flag=True, help="Each layer against what the core can do, instead.")
@runner_option
@json_option
def bench_command(
    build: str, threads: int, repeat: int, profile: bool, instructions: bool, show_roofline: bool, runner: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Times single inferences of BUILD, or counts their instructions, or holds its layers against the core's peak."""
    from edgenext_tvm.api import bench_build, count_build, profile_build

    if show_roofline:
        _bench_roofline(build, threads, repeat, runner, as_json)
        return
    if instructions:
        counts = count_build(build)
        if as_json:
            _emit({"build_dir": build, "instructions": counts.total, "by_function": counts.by_function})
        else:
            output.print(tables.counted(build, counts))
        return
    timing = bench_build(build, threads=threads, repeat=repeat, runner=runner)
    layers = profile_build(build, threads=threads, repeat=repeat, runner=runner) if profile else None
    if as_json:
        values = {"median_ms": timing.median_ms, "min_ms": timing.min_ms}
        _emit(
            {"build_dir": build, **values, "threads": timing.threads, "repeat": timing.repeat}
            | ({"profile": layers} if layers else {})
        )
        return
    output.print(tables.timed(build, timing))
    if layers:
        output.print(tables.profiled(layers))


def _bench_roofline(build: str, threads: int, repeat: int, runner: str | None, as_json: bool) -> None:
    from edgenext_tvm.api import roofline_build
    from edgenext_tvm.report import roofline_tables

    if threads != 1 or runner is not None:
        raise UserError(
            "--roofline holds one thread against one core, on this machine or by the emulator of the build's board; "
            "leave out --threads and --runner"
        )
    held = roofline_build(build, repeat=repeat)
    if as_json:
        _emit({"build_dir": build, "repeat": repeat, "roofline": held.to_dict()})
        return
    for table in roofline_tables.all_tables(held, build):
        output.print(table)
    for sentence in roofline_tables.sentences(held):
        output.print(sentence, markup=False)


cli.add_command(quantize_command)
cli.add_command(accuracy_command)


cli.add_command(finetune_command)

if __name__ == "__main__":
    main()
