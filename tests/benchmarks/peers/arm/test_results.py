"""Ours stand against the peer of fewest instructions, core by core; who was not counted is named."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from benchmarks.peers.arm.results import Count, reasons, sentences, standings, tables
from benchmarks.peers.entrants import Entrant, choose_engines

MODEL = "edgenext_xx_small"


def count(engine: str, precision: str, core: str, instructions: int | None, reason: str | None = None) -> Count:
    entrant = Entrant(choose_engines(engine)[0], precision, 1)
    return Count(MODEL, core, entrant, instructions, None if instructions is None else 0.999, reason)


COUNTS = [
    count("edgenext_tvm", "int8", "cortex-a76", 40_000_000),
    count("onnxruntime", "float32", "cortex-a76", 200_000_000),
    count("litert", "int8-dynamic", "cortex-a76", 100_000_000),
    count("edgenext_tvm", "int8", "cortex-a72", 90_000_000),
    count("onnxruntime", "float32", "cortex-a72", 150_000_000),
    count("litert", "int8-dynamic", "cortex-a72", None, "wrong answer: cosine 0.1"),
]


def test_the_best_peer_is_the_one_of_fewest_instructions_on_that_core() -> None:
    found = {s.core: (s.best_label, s.ratio) for s in standings(COUNTS)}
    assert found["cortex-a76"] == ("litert int8-dynamic", pytest.approx(0.4))
    assert found["cortex-a72"] == ("onnxruntime float32", pytest.approx(0.6))


def test_without_a_peer_or_without_ours_there_is_no_standing() -> None:
    assert standings(COUNTS[:1]) == []
    assert standings(COUNTS[1:3]) == []


def test_sentences_say_the_ratio_whoever_needs_fewer() -> None:
    first, _ = sentences(COUNTS)
    assert first == (
        "edgenext_xx_small, cortex-a76: edgenext_tvm executes 40.0 M instructions, 0.40 of the best other's, "
        "litert int8-dynamic with 100.0 M"
    )


def test_the_table_has_a_row_per_entrant_fewest_first_and_a_dash_where_nothing_was_counted() -> None:
    buffer = io.StringIO()
    (table,) = tables(COUNTS)
    Console(file=buffer, width=100).print(table)
    rows = [line.split() for line in buffer.getvalue().splitlines() if "0.9990" in line]
    assert [next(cell for cell in row if cell != "│") for row in rows] == [
        "edgenext_tvm",
        "litert",
        "onnxruntime",
    ]
    assert "-" in rows[1] and "100.0" in rows[1]


def test_who_was_not_counted_is_named_with_the_reason() -> None:
    assert reasons(COUNTS) == ["edgenext_xx_small, cortex-a72, litert int8-dynamic: wrong answer: cosine 0.1"]


def test_json_rows_keep_everything() -> None:
    assert COUNTS[5].to_dict() == {
        "model": MODEL,
        "core": "cortex-a72",
        "engine": "litert",
        "precision": "int8-dynamic",
        "instructions": None,
        "cosine": None,
        "reason": "wrong answer: cosine 0.1",
    }
