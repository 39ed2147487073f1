"""Mistakes are one error; the results name everybody, also those that did not race."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.peers.command import main
from benchmarks.peers.entrants import ENGINES, Entrant, choose_engines, entrants
from benchmarks.peers.interleave import Samples
from benchmarks.peers.results import Row, disturbance, reasons, summary, tables

MODEL = "edgenext_xx_small"
PEERS = Path(__file__).resolve().parents[3] / "benchmarks" / "peers"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "resnet50"], "resnet50"),
        (["--threads", "0"], "threads '0' is not possible; give numbers from 1 to 16, for example 1,2"),
        (["--engines", "tensorrt"], "engine 'tensorrt' is unknown; allowed: edgenext_tvm, onnxruntime, openvino"),
        (["--json", "/no/such/folder/out.json"], "its folder does not exist; create it, or name another file"),
    ],
)
def test_a_mistake_is_one_error_and_status_2(arguments: list[str], message: str, capsys) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert "Traceback" not in error


def test_every_engine_but_torch_and_ours_has_pinned_requirements_and_a_worker() -> None:
    for engine in ENGINES:
        assert (PEERS / "workers" / f"{engine.worker}.py").is_file()
        if engine.requirements is None:
            assert engine.name in ("edgenext_tvm", "pytorch")
            continue
        for line in (PEERS / "requirements" / engine.requirements).read_text().splitlines():
            assert "==" in line.split("#")[0], line


def test_int8_may_lose_more_than_float_before_it_is_refused() -> None:
    (ncnn,) = choose_engines("ncnn")
    least = {entrant.precision: entrant.least_cosine for entrant in entrants((ncnn,), (1,))}
    assert least == {"float32": 0.99, "bfloat16": 0.99, "int8": 0.9, "int8+bfloat16": 0.9}


def _row(engine: str, precision: str, threads: int, median_ms: float | None, reason: str | None = None) -> Row:
    row = Row(MODEL, Entrant(choose_engines(engine)[0], precision, threads), reason=reason)
    if median_ms is not None:
        row.samples, row.cosine = Samples([median_ms], median_ms, 1), 0.999
    return row


ROWS = [
    _row("edgenext_tvm", "int8", 1, 4.0),
    _row("edgenext_tvm", "float32", 1, 40.0),
    _row("ncnn", "int8", 1, 5.0),
    _row("openvino", "int8", 1, 2.0),
    _row("litert", "int8", 1, None, "cannot be converted: LayerNorm"),
]


def test_the_table_is_sorted_by_time_and_names_who_did_not_race() -> None:
    console = Console(file=io.StringIO(), width=200)
    for table in tables(ROWS, [MODEL], (1,)):
        console.print(table)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    order = ["openvino int8", "edgenext_tvm int8", "ncnn int8", "edgenext_tvm float32", "litert int8"]
    places = [text.index(label) for label in order]
    assert places == sorted(places)
    assert reasons(ROWS) == [f"{MODEL}, litert int8: cannot be converted: LayerNorm"]


def test_the_summary_says_so_when_ours_is_slower() -> None:
    (sentence,) = summary(ROWS, [MODEL], (1,))
    assert sentence == (
        f"{MODEL}, 1 thread: edgenext_tvm int8 at 4.00 ms is 2.00 times as slow as the fastest other, "
        "openvino int8 at 2.00 ms"
    )
    (sentence,) = summary(ROWS[:3], [MODEL], (1,))
    assert "is 1.25 times as fast as the fastest other, ncnn int8 at 5.00 ms" in sentence


def test_results_keep_every_round_and_every_reason() -> None:
    assert ROWS[0].to_dict()["round_medians_ms"] == [4.0]
    assert ROWS[4].to_dict()["reason"] == "cannot be converted: LayerNorm"
    assert "median_ms" not in ROWS[4].to_dict()


def test_figures_of_a_busy_machine_come_with_a_warning() -> None:
    assert disturbance(ROWS) is None
    busy = _row("ncnn", "int8", 1, 5.0)
    busy.samples = Samples([5.0, 5.1, 9.0], 4.9, 3)
    warning = disturbance([busy])
    assert warning is not None
    assert "the machine was not quiet: half of the entrants spread over 78%" in warning
    assert "race again" in warning
