"""A model's distinct kernels: weights and names apart, calls and layers counted."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from edgenext_tvm.board import Board
from edgenext_tvm.kernels import kernel_of
from edgenext_tvm.tune.tasks import extract_tasks

_SPEC = importlib.util.spec_from_file_location("session_program", Path(__file__).parent / "session_program.py")
session_program = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(session_program)


def test_layers_with_equal_kernels_are_one_task(host: Board) -> None:
    tasks = extract_tasks(session_program.lowered_model(), host)
    assert [(kernel_of(t.func), t.calls, t.layers) for t in tasks.tunable] == [
        (session_program.WIDE, 2, ("first", "second")),
        (session_program.LAST, 1, ("last",)),
    ]
    assert [task.macs for task in tasks.tunable] == [64 * 32 * 32, 64 * 32 * 48]
    assert all(task.size == sum(1 for _ in task.space.points()) > 1 for task in tasks.tunable)
    assert tasks.fixed == () and tasks.all == tasks.tunable


def test_weights_do_not_matter(host: Board) -> None:
    first, second = (extract_tasks(session_program.lowered_model(seed), host) for seed in (0, 9))
    assert [task.key for task in first.all] == [task.key for task in second.all]


def test_a_kernel_without_a_choice_is_no_task() -> None:
    from edgenext_tvm.board import load_board

    plain = load_board("host").model_copy(deep=True)
    plain = plain.model_copy(update={"cpu": plain.cpu.model_copy(update={"features": ()})})
    tasks = extract_tasks(session_program.lowered_model(), plain)
    assert len(tasks.all) == 2 and all(task.size >= 1 for task in tasks.all)
    assert all(task.size == 1 for task in tasks.fixed)


def test_names_are_short(host: Board) -> None:
    names = [task.name for task in extract_tasks(session_program.lowered_model(), host).tunable]
    assert names == ["dense t=64 ci=32 co=32 epilogue=lut", "dense t=64 ci=32 co=48"]
