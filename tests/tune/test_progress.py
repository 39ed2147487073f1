"""The live table stays readable on a narrow terminal."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from edgenext_tvm.tune.progress import Display


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize(("unit", "number"), [("s", "8172.9 us"), ("instructions", "8172.9 k instr.")])
def test_a_long_name_is_cut_and_no_number(width: int, unit: str, number: str) -> None:
    console = Console(file=io.StringIO(), width=width)
    display = Display(console)
    task = SimpleNamespace(name="depthwise " + "pad_top=3 " * 20, size=1000)
    display.unit = unit
    display.states = [
        SimpleNamespace(task=task, share=0.123, default_cost=8172.9e-6, best_cost=8172.9e-6, trials=8, errors=3)
    ]
    console.print(display._table())
    _, row = console.file.getvalue().splitlines()
    assert row.startswith(" depthwise") and row.count(number) == 2
    assert "12.3%" in row and "8/1000" in row and row.split()[-1] == "3"
