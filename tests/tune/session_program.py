"""Tunes a small model on this machine as its own process, which tests kill and interrupt; also the model itself.

session_program.py LOG_DIR TRIALS [--resume]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import tvm
from rich.console import Console
from tvm import relax

from edgenext_tvm.board import load_board
from edgenext_tvm.errors import UserError
from edgenext_tvm.kernels import Dense
from edgenext_tvm.kernels.sample_inputs import sample_inputs
from edgenext_tvm.tune.database import TuningDatabase
from edgenext_tvm.tune.local import LocalMeasurer
from edgenext_tvm.tune.manifest import Progress
from edgenext_tvm.tune.measure_program import TimingOptions
from edgenext_tvm.tune.progress import Display
from edgenext_tvm.tune.session import Outcome, Session
from edgenext_tvm.tune.tasks import extract_tasks

WIDE = Dense(64, 32, 32, "lut")
LAST = Dense(64, 32, 48, "none")
MODEL = "three dense layers"


def lowered_model(seed: int = 0) -> tvm.IRModule:
    """Three dense layers of two kernels, as `passes.pipeline.lower` gives them; seed: of the weights."""
    builder = relax.BlockBuilder()
    layers: dict[str, str] = {}
    x = relax.Var("x", relax.TensorType((64, 32), "int8"))
    with builder.function("main", [x]):
        with builder.dataflow():
            value = x
            for number, (kernel, layer) in enumerate([(WIDE, "first"), (WIDE, "second"), (LAST, "last")]):
                constants = [relax.const(array) for array in sample_inputs(kernel, seed + number)[1:]]
                function = builder.add_func(kernel.prim_func(f"dense_{number}"), f"dense_{number}")
                shape, dtype = kernel.output_types()[0]
                call = relax.call_tir(function, [value, *constants], relax.TensorType(shape, dtype))
                value = builder.emit(call) if layer != "last" else builder.emit_output(call)
                layers[value.name] = layer
        builder.emit_func_output(value)
    module = builder.get()
    main = module["main"].with_attr("enx.layers", json.dumps(layers))
    return tvm.IRModule({**{g: f for g, f in module.functions.items() if g.name_hint != "main"}, "main": main})


def plan_for(database: TuningDatabase, trials: int, resume: bool) -> Progress:
    earlier = database.manifest.session
    if resume:
        assert earlier is not None
        return earlier
    return Progress(model=MODEL, options={}, trials=trials, time_budget_s=None)


def run(folder: Path, trials: int, resume: bool, console: Console) -> Outcome:
    """One session with the measurer of this machine, short rounds."""
    board = load_board("host")
    measurer = LocalMeasurer(board, TimingOptions(rounds=3, min_ms=1))
    try:
        with TuningDatabase(folder, board, measurer.name, measurer.unit, "2026-01-01T00:00:00Z") as database:
            plan = plan_for(database, trials, resume)
            tasks = extract_tasks(lowered_model(), board)
            return Session(database, measurer, tasks, Display(console), plan).run()
    finally:
        measurer.close()


def main() -> int:
    folder, trials, *rest = sys.argv[1:]
    try:
        outcome = run(Path(folder), int(trials), "--resume" in rest, Console(stderr=True, width=300))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps({"trials": outcome.trials, "interrupted": outcome.interrupted}))
    return 130 if outcome.interrupted else 0


if __name__ == "__main__":
    sys.exit(main())
