"""Tables of tuning stay whole on narrow terminals."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from edgenext_tvm.board import load_board
from edgenext_tvm.kernels import Dense
from edgenext_tvm.report.tuning_tables import tuned
from edgenext_tvm.schedules.default import space_of
from edgenext_tvm.tune.search import PointSearch
from edgenext_tvm.tune.session import Outcome, TaskState
from edgenext_tvm.tune.tasks import Task, canonical


def state() -> TaskState:
    board = load_board("rpi4")
    func = canonical(Dense(4096, 24, 96, "lut").prim_func("dense"))
    space = space_of(func, board.isa, board.cpu.features)
    task = Task(func, space, 3, ("a",), 1)
    search = PointSearch(space, 0, {})
    return TaskState(task, search, 0, 1.2345e-3, 0.161, errors=3, first_error="lost [pi]: no route\nto host")


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("unit", ["s", "instructions"])
def test_numbers_names_and_errors_stay_whole(width: int, unit: str) -> None:
    shown = Console(file=io.StringIO(), width=width)
    shown.print(tuned(Outcome([state()], 0.0, 0.01, unit, 1, 1.0)))
    lines = shown.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    text = " ".join(" ".join(lines).split())
    assert re.search(r"untuned +best +gain +spread +points", text)
    assert "1234.5" in text and "16.1%" in text
    first_column = " ".join(" ".join(line[: width - 47] for line in lines).split())
    assert state().task.name in first_column
    assert "not decided: lost [pi]: no route 3 errors" in first_column
