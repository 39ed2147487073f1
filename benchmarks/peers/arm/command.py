"""The command behind arm_instructions.py: makes the userland, converts, checks, counts, reports."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.peers.arm.cores import CORES, ArmCore, choose_cores
from benchmarks.peers.arm.results import Count, reasons, sentences, standings, tables
from benchmarks.peers.entrants import OURS, Engine, choose_engines, entrants
from benchmarks.peers.failures import PeerUnavailable
from edgenext_tvm.errors import UserError
from edgenext_tvm.model.config import VARIANTS, get_config

DEFAULT_MODELS = "edgenext_xx_small,edgenext_small"
DEFAULT_CORES = "cortex-a76,cortex-a72"
ENGINES = (OURS, "onnxruntime", "litert")
USER_ERROR_STATUS = 2
OURS_FAILED_STATUS = 1

errors = Console(stderr=True, soft_wrap=True, highlight=False)
output = Console(soft_wrap=True, highlight=False, width=None if sys.stdout.isatty() else 120)


def main(arguments: Sequence[str] | None = None) -> int:
    """Counts and reports. Status 0, 1 when this project's own builds were not counted, 2 for a mistake of the user."""
    options = _parse(arguments)
    try:
        models = list(dict.fromkeys(options.models.split(",")))
        for model in models:
            get_config(model)
        counts = run(models, choose_cores(options.cores), _choose(options.engines), options.json)
    except UserError as error:
        errors.print(f"error: {error}", markup=False)
        return USER_ERROR_STATUS
    for table in tables(counts):
        output.print(table)
    for reason in reasons(counts):
        output.print(f"not counted: {reason}", style="red", markup=False)
    for sentence in sentences(counts):
        output.print(sentence, markup=False)
    mine = [count for count in counts if count.entrant.engine.name == OURS]
    return OURS_FAILED_STATUS if any(count.reason for count in mine) else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="arm_instructions.py",
        description="Executed Arm instructions of one inference, this project against the AArch64 wheels of other "
        "engines, under the same emulator and core model, one thread.",
    )
    parser.add_argument(
        "--models", default=DEFAULT_MODELS, help=f"comma-separated, of {', '.join(VARIANTS)} (default {DEFAULT_MODELS})"
    )
    parser.add_argument(
        "--cores",
        default=DEFAULT_CORES,
        help=f"comma-separated, of {', '.join(core.name for core in CORES)} (default {DEFAULT_CORES})",
    )
    parser.add_argument("--engines", help=f"comma-separated, of {', '.join(ENGINES)} (default all)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write versions and all counts")
    return parser.parse_args(arguments)


def _choose(names: str | None) -> tuple[Engine, ...]:
    for name in (names or "").split(","):
        if name and name not in ENGINES:
            raise UserError(f"engine '{name}' is not counted; allowed: {', '.join(ENGINES)}")
    return choose_engines(names or ",".join(ENGINES))


def run(
    models: list[str], cores: tuple[ArmCore, ...], engines: tuple[Engine, ...], json_file: Path | None
) -> list[Count]:
    """Counts every entrant on every model and core, writing `json_file` anew after each, so that nothing gets lost."""
    from benchmarks.peers.case import prepare_case

    if json_file is not None and not json_file.resolve().parent.is_dir():
        raise UserError(f"{json_file}: its folder does not exist; create it, or name another file")
    about = _about(models, cores)
    counts: list[Count] = []
    for model in models:
        case = prepare_case(model)
        for core in cores:
            for engine in engines:
                counts += _count_engine(model, case, core, engine)
                if json_file is not None:
                    found = {
                        "rows": [count.to_dict() for count in counts],
                        "standings": [standing.to_dict() for standing in standings(counts)],
                    }
                    json_file.write_text(json.dumps(about | found, indent=1) + "\n")
    return counts


def _count_engine(model: str, case: Path, core: ArmCore, engine: Engine) -> list[Count]:
    from benchmarks.peers.arm.count import count_peer
    from benchmarks.peers.arm.ours import build_for, count_ours
    from benchmarks.peers.arm.sysroot import ensure_userland
    from benchmarks.peers.artifacts import convert

    counts = []
    for entrant in entrants((engine,), (1,)):
        if engine.name == OURS and entrant.precision != "int8":
            continue
        start = time.perf_counter()
        try:
            if engine.name == OURS:
                found = count_ours(entrant, build_for(entrant, model, case, core), case)
            else:
                folder = convert(engine, entrant.precision, case)
                found = count_peer(entrant, folder, case, core, ensure_userland())
            counts.append(Count(model, core.name, entrant, *found))
            note = f"{found[0] / 1e6:.1f} M instructions in {time.perf_counter() - start:.0f} s"
        except PeerUnavailable as error:
            counts.append(Count(model, core.name, entrant, reason=str(error)))
            note = str(error)
        errors.print(f"{model} {core.name} {entrant.label}: {note}", markup=False)
    return counts


def _about(models: list[str], cores: tuple[ArmCore, ...]) -> dict[str, Any]:
    from benchmarks.peers.arm.count import emulator_version
    from benchmarks.peers.arm.sysroot import REQUIREMENTS
    from benchmarks.peers.case import CALIBRATION, CHECKPOINT, INPUT_SIZE
    from benchmarks.peers.machine import our_version
    from edgenext_tvm.board import load_board
    from edgenext_tvm.verify.runner import QemuRunner

    return {
        "settings": {
            "models": models,
            "cores": {core.name: {"board": core.board, "dotprod": core.has_dotprod} for core in cores},
            "input": [1, 3, INPUT_SIZE, INPUT_SIZE],
            "checkpoint": CHECKPOINT,
            "calibration": CALIBRATION,
            "threads": 1,
            "emulator": emulator_version(QemuRunner.for_board(load_board(cores[0].board))),
        },
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": {
            OURS: our_version(),
            "peers": [line.split("#")[0].strip() for line in REQUIREMENTS.read_text().splitlines()],
        },
    }


if __name__ == "__main__":
    sys.exit(main())
