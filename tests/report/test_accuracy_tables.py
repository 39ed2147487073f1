"""The tables of `accuracy`: rows, order, and what is left empty."""

from __future__ import annotations

import math

import numpy as np
from rich.console import Console

from edgenext_tvm.accuracy.ledger import BOARD, HOST, NATIVE, fill_ledger
from edgenext_tvm.accuracy.measure_layers import LOGITS, LayerNoise, TensorNoise
from edgenext_tvm.accuracy.measure_ledger import Ledger
from edgenext_tvm.quantize.sensitivity import Sensitivity
from edgenext_tvm.report.accuracy_tables import decibel, layers_sentence, layers_table, ledger_tables, scan_table


def printed(table, width: int = 200) -> str:
    console = Console(width=width, record=True)
    console.print(table)
    return console.export_text()


def ledger(labels: np.ndarray | None = None) -> Ledger:
    a = np.array([[3.0, 1.0], [0.0, 2.0]], np.float32)
    b = np.array([[1.0, 3.0], [0.0, 2.0]], np.float32)
    return Ledger(fill_ledger({NATIVE: a, HOST: b, BOARD: b}, labels), "few.npz", "rpi4", "qemu-aarch64 cortex-a72")


def noise() -> LayerNoise:
    tensors = [
        TensorNoise("a:conv2d", "a", "conv2d", "int8", 0.5, 0, 31.24, 40.0, 0.0),
        TensorNoise("b:linear", "b", "dense", "int16", 0.25, 3, 12.0, 13.0, 0.125),
        TensorNoise(LOGITS, "fc", "dense", "float32", 1.0, 0, 20.0, math.inf, 0.0),
    ]
    return LayerNoise(tuple(tensors), ("b.fc1:linear",), 4, "host")


def test_the_ledger_shows_each_stage_against_float_and_against_the_one_above() -> None:
    to_float, steps = (printed(table) for table in ledger_tables(ledger(np.array([0, 1]))))
    # a title breaks where its table ends
    assert " ".join(to_float.split()).count("float, native preprocessing") == 2, "in the title and in the first row"
    assert "board: qemu-aarch64 cortex-a72," in to_float
    assert "C library, board" in to_float and "C library, this machine" in to_float
    host, board = [line for line in steps.splitlines() if line.strip().startswith("C library")]
    assert "-50.00" in host and "+0.00" in board and "0.0e+00" in board


def test_numbers_stay_whole_in_80_columns() -> None:
    for table in ledger_tables(ledger(np.array([0, 1]))):
        text = printed(table, 80)
        assert "0.0e+00" in text and "\u2026" not in text


def test_without_labels_the_columns_of_accuracy_are_empty() -> None:
    to_float, steps = (printed(table) for table in ledger_tables(ledger()))
    assert "top-1 %" in to_float and "top-1 change" in steps
    assert "-50.00" not in steps and "+0.00" not in steps


def test_the_noisiest_tensors_come_first_and_no_more_than_asked() -> None:
    text = printed(layers_table(noise(), 2))
    assert text.index("b:linear") < text.index(LOGITS) and "a:conv2d" not in text
    assert "2 worst of 3" in text and "12.500" in text


def test_the_worst_layers_are_named_and_what_was_not_seen_is_told() -> None:
    assert layers_sentence(noise()) == (
        "worst layers: b (12.0 dB), fc (20.0 dB), a (31.2 dB); worst rounded by itself: b:linear (13.0 dB); "
        "1 tensors live only inside fused kernels"
    )


def test_the_scan_names_groups_by_their_first_tensor() -> None:
    entries = [Sensitivity(("a", "b", "c"), 0.5, 3.0, 0.75), Sensitivity(("d.weight",), 0.0, math.inf, 1.0)]
    text = printed(scan_table(entries, 5))
    assert "a (+2 of its scale)" in text and "5.00e-01" in text and "75.00" in text and "exact" in text
    assert "d.weight" not in printed(scan_table(entries, 1))


def test_decibel() -> None:
    assert [decibel(value) for value in (12.345, math.inf, -math.inf)] == ["12.3", "exact", "-inf"]
