"""Each point of a space becomes a trace, and the trace names the same point again, also after JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tvm
from tvm import s_tir
from tvm.s_tir import meta_schedule as ms

from edgenext_tvm.board import load_board
from edgenext_tvm.errors import UserError
from edgenext_tvm.kernels import Conv2d, Dense
from edgenext_tvm.schedules.default import space_of
from edgenext_tvm.schedules.space import Space
from edgenext_tvm.tune.points import at_point, design_space, point_of, replay
from edgenext_tvm.tune.tasks import canonical

KERNELS = [Dense(64, 32, 48, "lut"), Dense(16, 24, 24, "residual"), Conv2d(1, 8, 8, 24, 48, 2, 2, 2, 2)]


def space_on(board_name: str, kernel) -> tuple[tvm.IRModule, Space]:
    board = load_board(board_name)
    func = canonical(kernel.prim_func("kernel"))
    return tvm.IRModule({"main": func}), space_of(func, board.isa, board.cpu.features)


def design(mod: tvm.IRModule, space: Space) -> s_tir.Schedule:
    (schedule,) = design_space(space).generate_design_space(mod)
    return schedule


@pytest.mark.parametrize("board_name", ["host", "rpi4", "rpi5"])
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.kind)
def test_every_point_round_trips_through_its_trace(board_name: str, kernel) -> None:
    mod, space = space_on(board_name, kernel)
    schedule = design(mod, space)
    points = list(space.points())
    assert points
    for decisions in points[:: max(1, len(points) // 40)]:
        assert point_of(replay(at_point(schedule, space, decisions).trace, mod)) == (space.family, decisions)


def test_a_design_space_stands_at_the_hand_picked_point() -> None:
    mod, space = space_on("host", KERNELS[0])
    assert len(list(space.points())) > 1
    assert point_of(design(mod, space)) == (space.family, space.default)


def test_a_trace_survives_the_database(tmp_path: Path) -> None:
    mod, space = space_on("host", KERNELS[0])
    last = list(space.points())[-1]
    database = ms.database.JSONDatabase(work_dir=str(tmp_path))
    workload = database.commit_workload(mod)
    trace = at_point(design(mod, space), space, last).trace
    database.commit_tuning_record(ms.database.TuningRecord(trace, workload, [1e-3], tvm.target.Target("llvm")))
    (record,) = ms.database.JSONDatabase(work_dir=str(tmp_path)).get_all_tuning_records()
    assert point_of(replay(record.trace, record.workload.mod)) == (space.family, last)
    assert json.loads((tmp_path / "database_tuning_record.json").read_text())[0] == 0


def test_what_is_no_point_has_no_trace() -> None:
    mod, space = space_on("host", KERNELS[0])
    name = space.knobs[0].name
    with pytest.raises(UserError, match=f"{name} is 4096; allowed: "):
        at_point(design(mod, space), space, {**space.default, name: 4096})


def test_a_function_that_was_never_sampled_has_no_point() -> None:
    mod, _ = space_on("host", KERNELS[0])
    assert point_of(s_tir.Schedule(mod)) == ("", {})
