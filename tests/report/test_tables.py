"""Tables say units, and nothing of a value gets lost in a narrow terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Table

from edgenext_tvm.board import load_board
from edgenext_tvm.report import tables
from edgenext_tvm.verify.device import Timing


def text(table: Table, width: int = 80) -> str:
    buffer = io.StringIO()
    Console(file=buffer, width=width).print(table)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("size_bytes", "expected"),
    [(0, "0.0 KiB"), (1536, "1.5 KiB"), (1 << 20, "1.00 MiB"), (1 << 30, "1.00 GiB"), (3 << 29, "1.50 GiB")],
)
def test_sizes_have_a_binary_unit(size_bytes: int, expected: str) -> None:
    assert tables.binary_size(size_bytes) == expected


def test_boards_fit_80_columns_with_core_clock_and_ram() -> None:
    shown = text(tables.boards([load_board("rpi4"), load_board("rpi2")]))
    assert [line.split() for line in shown.splitlines() if "rpi4" in line] == [
        ["rpi4", "Cortex-A72", "aarch64", "4", "1.50", "4.00", "GiB", "qemu-aarch64"]
    ]


def test_times_are_in_ms() -> None:
    shown = text(tables.timed("out/x", Timing(median_ms=1.23456, min_ms=1.2, threads=2, repeat=50)))
    assert "median ms" in shown
    assert ["out/x", "1.235", "1.200", "2", "50"] in [line.split() for line in shown.splitlines()]


def test_classes_show_their_names_where_known_and_numbers_elsewhere() -> None:
    best = {"class": 8, "name": "ship", "logit": 3.25, "probability": 0.5}
    other = {"class": 3, "logit": 1.0, "probability": 0.25}
    lines = [line.split() for line in text(tables.classified([{"file": "a/b.png", "top": [best, other]}])).splitlines()]
    assert ["b.png", "ship", "3.250", "50.0%"] in lines
    assert ["3", "1.000", "25.0%"] in lines


def test_layers_come_with_their_share_of_the_time() -> None:
    layers = {"total_us": 100.0, "layers": [{"layer": "stem.0", "us": 25.0, "share": 0.25, "macs": 2_000_000}]}
    shown = text(tables.profiled(layers))
    assert "100 us a run" in shown
    assert ["stem.0", "25.0", "25.0%", "2.00"] in [line.split() for line in shown.splitlines()]
