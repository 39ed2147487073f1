"""Shows that measuring over RPC scales with the boards behind one key: measurements per minute of 1 and of N servers.

The servers are processes of this machine that sleep before each number, as a slow board would keep a client waiting, so
that measuring dominates and this machine's few cores do not decide. The workers that build and connect are warm: each
figure is one batch after a small one.
Run `python benchmarks/rpc_scaling.py [--servers N --trials N --sleep SECONDS --json]`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.rpc_farm import SLEEP, Farm
from edgenext_tvm.board import load_board
from edgenext_tvm.kernels import Dense
from edgenext_tvm.schedules.default import space_of
from edgenext_tvm.tune.measure import Candidate
from edgenext_tvm.tune.rpc import RpcMeasurer, Timing

REPEAT = 3


def per_minute(servers: int, trials: int, sleep_s: float) -> float:
    """Measurements per minute of one batch of `trials`; RuntimeError if one of them failed."""
    board = load_board("host")
    func = Dense(64, 48, 64, "lut").prim_func("dense")
    points = list(space_of(func, board.isa, board.cpu.features).points())
    batch = [Candidate(func, points[index % len(points)]) for index in range(trials)]
    with Farm() as farm:
        farm.start(servers, sleep_s)
        measurer = RpcMeasurer(board, farm.tracker.address, farm.key, Timing(REPEAT, 1, 1, SLEEP), build_workers=2)
        try:
            measurer.measure(batch[: 2 * servers])
            begin = time.perf_counter()
            results = measurer.measure(batch)
            elapsed = time.perf_counter() - begin
        finally:
            measurer.close()
    errors = [result.error for result in results if result.error is not None]
    if errors:
        raise RuntimeError(f"{len(errors)} of {trials} candidates failed, the first with: {errors[0]}")
    return 60.0 * trials / elapsed


def main() -> None:
    """Print the figures of one and of several servers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--servers", type=int, default=3)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--sleep", type=float, default=1.0, help="seconds before each of the 3 numbers of a trial")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    one = per_minute(1, options.trials, options.sleep)
    many = per_minute(options.servers, options.trials, options.sleep)
    row = {
        "trials": options.trials,
        "sleep_s_per_trial": REPEAT * options.sleep,
        "servers": options.servers,
        "per_minute_one": round(one, 1),
        "per_minute_many": round(many, 1),
        "ratio": round(many / one, 2),
    }
    if options.json:
        print(json.dumps(row))
        return
    print(f"{options.trials} trials, each sleeps {row['sleep_s_per_trial']:g} s on its server")
    print(f"1 server    {one:6.1f} measurements per minute")
    print(f"{options.servers} servers   {many:6.1f} measurements per minute: {many / one:.2f} times as many")


if __name__ == "__main__":
    main()
