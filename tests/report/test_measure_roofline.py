"""A real build, measured step by step: no step is below its floor, and nothing is counted twice."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from edgenext_tvm import cli
from edgenext_tvm.errors import UserError
from edgenext_tvm.report import roofline_tables
from edgenext_tvm.report.measure_roofline import measure_roofline
from edgenext_tvm.report.roofline import Roofline
from edgenext_tvm.tune.emulator import count_inference
from edgenext_tvm.verify.build_folder import open_build


@pytest.fixture(scope="module")
def on_host(host_build: Path) -> Roofline:
    return measure_roofline(open_build(host_build), repeat=5)


def test_every_step_of_the_build_is_held_against_its_floor(on_host: Roofline, host_build: Path) -> None:
    manifest = open_build(host_build).manifest
    assert [(x.layer, x.kernel, x.macs) for x in on_host.layers] == [
        (x.layer, x.kernel, x.macs) for x in manifest.layers
    ]
    assert on_host.total.macs == manifest.macs
    assert on_host.unit == "us"


def test_no_step_is_faster_than_the_machine(on_host: Roofline) -> None:
    # the clock may have been a little lower while the peak was measured
    below = [x.layer for x in on_host.layers if x.measured < 0.8 * x.floor]
    assert below == []


def test_tables_name_the_kinds_the_peak_and_the_pointwise_share(on_host: Roofline) -> None:
    buffer = io.StringIO()
    console = Console(file=buffer, width=80)
    for table in roofline_tables.all_tables(on_host, "out/x"):
        console.print(table)
    shown = buffer.getvalue()
    for words in ("out/x: floor and gap by kind of kernel, us", "layer_norm", "pointwise layers", "all kernels"):
        assert words in shown
    assert f"{on_host.total.measured:.1f}" in shown
    first, second = roofline_tables.sentences(on_host)
    assert first.startswith("peak of one core, measured now: ") and "GMAC/s" in first
    assert f"{on_host.pointwise.share_of_roofline:.1%} of the roofline" in second


@pytest.mark.qemu
def test_an_emulated_board_is_held_by_instructions_that_add_up(rpi4_build: Path) -> None:
    held = measure_roofline(open_build(rpi4_build), repeat=1)
    assert held.unit == "instructions"
    assert held.total.measured + held.rest == pytest.approx(count_inference(rpi4_build).total)
    assert held.rest < 0.05 * held.total.measured
    # exact counts: not a single step may need fewer instructions than its floor
    assert [x.layer for x in held.layers if x.measured < x.floor] == []


def test_a_float_build_has_no_int8_roofline(host_build: Path) -> None:
    build = open_build(host_build)
    floating = dataclasses.replace(build, manifest=build.manifest.model_copy(update={"precision": "float32"}))
    with pytest.raises(UserError, match="is a float32 build; the roofline is that of int8 multiply-adds"):
        measure_roofline(floating, repeat=1)


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["edgenext-tvm", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_bench_prints_it_as_one_json_object(
    host_build: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch, "bench", host_build, "--roofline", "--repeat", 2, "--json") == 0
    written = json.loads(capfd.readouterr().out)
    assert written["repeat"] == 2
    assert written["roofline"]["unit"] == "us"
    assert len(written["roofline"]["layers"]) == open_build(host_build).manifest.kernel_calls


@pytest.mark.parametrize("option", [("--threads", "2"), ("--runner", "qemu")])
def test_bench_refuses_to_hold_several_threads_or_another_runner(
    option: tuple[str, str], host_build: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch, "bench", host_build, "--roofline", *option) == 2
    assert "--roofline holds one thread against one core" in capfd.readouterr().err
