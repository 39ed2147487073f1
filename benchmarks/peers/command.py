"""The command behind race.py: prepares every entrant, checks its answers, races, reports."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.peers.entrants import ENGINES, OURS, Engine, Entrant, choose_engines, entrants
from benchmarks.peers.failures import PeerUnavailable, last_words
from benchmarks.peers.guard import check_logits
from benchmarks.peers.interleave import WARM_UPS, Worker, race
from benchmarks.peers.results import Row, disturbance, reasons, summary, tables
from edgenext_tvm.errors import UserError
from edgenext_tvm.model.config import VARIANTS, get_config

DEFAULT_MODELS = "edgenext_xx_small"
MAX_THREADS = 16
USER_ERROR_STATUS = 2
OURS_FAILED_STATUS = 1

errors = Console(stderr=True, soft_wrap=True, highlight=False)
output = Console(soft_wrap=True, highlight=False, width=None if sys.stdout.isatty() else 120)


def main(arguments: Sequence[str] | None = None) -> int:
    """The race. Status 0, 1 when this project's own builds did not race, 2 for a mistake of the user."""
    options = _parse(arguments)
    try:
        models = list(dict.fromkeys(options.models.split(",")))
        for model in models:
            get_config(model)
        results, rows = run(models, _threads(options.threads), choose_engines(options.engines), options)
    except UserError as error:
        errors.print(f"error: {error}", markup=False)
        return USER_ERROR_STATUS
    threads = tuple(results["settings"]["threads"])
    for table in tables(rows, models, threads):
        output.print(table)
    for reason in reasons(rows):
        output.print(f"not in the race: {reason}", style="red", markup=False)
    machine, load = results["machine"], results["load"]
    output.print(
        f"{machine['cpu']} ({machine['core']}), {machine['cpus']} CPUs, load {load['before']} before and "
        f"{load['after']} after, {options.rounds} rounds of {options.runs} runs",
        markup=False,
    )
    for sentence in summary(rows, models, threads):
        output.print(sentence, markup=False)
    if warning := disturbance(rows):
        output.print(f"warning: {warning}", style="yellow", markup=False)
    return 0 if any(row.samples for row in rows if row.entrant.engine.name == OURS) else OURS_FAILED_STATUS


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="race.py", description=__doc__)
    parser.add_argument("--models", default=DEFAULT_MODELS, help=f"comma-separated, of {', '.join(VARIANTS)}")
    parser.add_argument("--threads", default="1,2", help="comma-separated numbers (default 1,2)")
    parser.add_argument("--rounds", type=_positive, default=15, help="how often everyone is measured (default 15)")
    parser.add_argument("--runs", type=_positive, default=20, help="inferences per round (default 20)")
    parser.add_argument(
        "--engines", help=f"comma-separated, of {', '.join(engine.name for engine in ENGINES)} (default all)"
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write settings, machine, versions and all samples")
    parser.add_argument("--plot", type=Path, metavar="OUT.png", help="draw the result")
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of 1 or more")
    return int(text)


def _threads(text: str) -> tuple[int, ...]:
    counts = text.split(",")
    if not all(count.isascii() and count.isdigit() and 1 <= int(count) <= MAX_THREADS for count in counts):
        raise UserError(f"threads '{text}' is not possible; give numbers from 1 to {MAX_THREADS}, for example 1,2")
    return tuple(sorted({int(count) for count in counts}))


def run(
    models: list[str], threads: tuple[int, ...], engines: tuple[Engine, ...], options: argparse.Namespace
) -> tuple[dict[str, Any], list[Row]]:
    """Prepares and races; writes what --json and --plot ask for. Nothing is timed before everybody is converted."""
    from benchmarks.peers.case import CALIBRATION, CHECKPOINT, INPUT_SIZE, prepare_case
    from benchmarks.peers.machine import describe_machine, load_average, our_version, versions

    for file in (options.json, options.plot):
        if file is not None and not file.resolve().parent.is_dir():
            raise UserError(f"{file}: its folder does not exist; create it, or name another file")
    ready: dict[str, tuple[Path, dict[Entrant, Path], list[Row]]] = {}
    for model in models:
        case = prepare_case(model)
        ready[model] = (case, *_convert_all(model, case, engines, threads))
    before = load_average()
    rows: list[Row] = []
    for model in models:
        case, folders, refused = ready[model]
        rows += refused + _race_model(model, case, folders, options.rounds, options.runs)
    results = {
        "settings": {
            "models": models,
            "threads": list(threads),
            "rounds": options.rounds,
            "runs_per_round": options.runs,
            "warm_ups_per_round": WARM_UPS,
            "input": [1, 3, INPUT_SIZE, INPUT_SIZE],
            "checkpoint": CHECKPOINT,
            "calibration": CALIBRATION,
            "ours": OURS,
        },
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": describe_machine(),
        "warning": disturbance(rows),
        "load": {"before": before, "after": load_average()},
        "versions": {engine.name: versions(engine) for engine in engines} | {OURS: our_version()},
        "rows": [row.to_dict() for row in rows],
    }
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    if options.plot:
        _plot(results, options.plot)
    return results, rows


def _convert_all(
    model: str, case: Path, engines: tuple[Engine, ...], threads: tuple[int, ...]
) -> tuple[dict[Entrant, Path], list[Row]]:
    from benchmarks.peers.artifacts import convert

    folders: dict[Entrant, Path] = {}
    refused: list[Row] = []
    for engine in engines:
        for precision in engine.precisions:
            mine = [entrant for entrant in entrants((engine,), threads) if entrant.precision == precision]
            start = time.perf_counter()
            try:
                folder = convert(engine, precision, case)
                folders |= dict.fromkeys(mine, folder)
                note = f"ready in {time.perf_counter() - start:.0f} s"
            except PeerUnavailable as error:
                refused += [Row(model, entrant, reason=str(error)) for entrant in mine]
                note = str(error)
            errors.print(f"{model} {engine.name} {precision}: {note}", markup=False)
    return folders, refused


def _race_model(model: str, case: Path, folders: dict[Entrant, Path], rounds: int, runs: int) -> list[Row]:
    rows = []
    workers: dict[str, Worker] = {}
    by_name: dict[str, Row] = {}
    try:
        for entrant, folder in folders.items():
            row = Row(model, entrant)
            rows.append(row)
            name = f"{entrant.label} {entrant.threads}"
            try:
                worker = start_worker(entrant, folder)
                workers[name], by_name[name] = worker, row
                row.cosine = check_worker(worker, case, entrant.least_cosine)
            except PeerUnavailable as error:
                row.reason = str(error)
                if name in workers:
                    workers.pop(name).close()
                errors.print(f"{model} {name}: {error}", markup=False)
        samples, failed = race(
            workers, rounds, runs, lambda done: errors.print(f"{model}: round {done} of {rounds}", end="\r")
        )
        errors.print()
    finally:
        for worker in workers.values():
            worker.close()
    for name, taken in samples.items():
        by_name[name].samples = taken
    for name, reason in failed.items():
        by_name[name].reason = reason
    return rows


def start_worker(entrant: Entrant, folder: Path) -> Worker:
    """The entrant's process with its network loaded. PeerUnavailable when it cannot be."""
    from benchmarks.peers.artifacts import worker_command
    from benchmarks.peers.environments import peers_cache, worker_variables

    command = [*worker_command(entrant.engine), "serve", str(folder), entrant.precision, str(entrant.threads)]
    log = peers_cache() / "logs" / f"{entrant.engine.name}-{entrant.precision}-{entrant.threads}.log"
    return Worker(command, worker_variables(entrant.threads), log)


def check_worker(worker: Worker, case: Path, least: float) -> float:
    """The least cosine of the worker's logits against the case's; PeerUnavailable where they are wrong."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "logits.npy"
        worker.write_logits(case, file)
        return check_logits(np.load(file), np.load(case / "logits.npy"), least)


def _plot(results: dict[str, Any], file: Path) -> None:
    from benchmarks.peers.environments import FOLDER, ensure_environment

    try:
        python = ensure_environment("matplotlib", "matplotlib.txt")
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "results.json"
            source.write_text(json.dumps(results))
            finished = subprocess.run(
                [str(python), str(FOLDER / "draw.py"), str(source), str(file)], capture_output=True, text=True
            )
        if finished.returncode != 0:
            raise PeerUnavailable(last_words(finished.stderr))
    except PeerUnavailable as error:
        errors.print(f"no picture: {error}", markup=False)


if __name__ == "__main__":
    sys.exit(main())
