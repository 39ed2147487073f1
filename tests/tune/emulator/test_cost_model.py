"""Costs are sums over executed instructions, by class where the core has weights."""

from __future__ import annotations

import struct

import pytest

from edgenext_tvm.board import load_board
from edgenext_tvm.tune.emulator.a64_classes import CLASSES
from edgenext_tvm.tune.emulator.cost_model import WEIGHTS, PlainCount, WeightedClasses, cost_model_for, count_classes
from edgenext_tvm.tune.emulator.executed_blocks import ExecutedBlock

ADD, SDOT, LDR_Q, BRANCH = 0x8B020020, 0x4E829420, 0x3DC00020, 0x54000C61


def block(executions: int, *words: int, beyond: int = 0) -> ExecutedBlock:
    code = struct.pack(f"<{len(words)}I", *words)
    return ExecutedBlock(0, len(words) - beyond, executions, code)


BLOCKS = [block(10, LDR_Q, SDOT, SDOT, BRANCH), block(1, ADD, ADD, beyond=1)]


def test_instructions_are_counted_by_class_as_often_as_they_ran() -> None:
    assert count_classes(BLOCKS) == {"simd_load": 10, "simd_dot": 20, "branch": 10, "integer": 1}


def test_the_cost_is_the_weighted_sum() -> None:
    weights = dict.fromkeys(CLASSES, 1.0) | {"simd_dot": 3.0, "simd_load": 0.5}
    assert WeightedClasses("made-up", weights).cost(BLOCKS) == 10 * 0.5 + 20 * 3 + 10 + 1


def test_a_plain_count_is_the_number_of_executed_instructions() -> None:
    assert PlainCount().cost(BLOCKS) == 41


@pytest.mark.parametrize("core", WEIGHTS)
def test_each_core_has_a_weight_for_each_class_relative_to_an_addition(core: str) -> None:
    assert set(WEIGHTS[core]) == set(CLASSES)
    assert WEIGHTS[core]["integer"] == min(WEIGHTS[core].values()) == 1


@pytest.mark.parametrize(
    ("board", "described"),
    [
        ("rpi3", "weights of cortex-a53"),
        ("rpi4", "weights of cortex-a72"),
        ("rpi5", "weights of cortex-a76"),
        ("cortex-a55", "weights of cortex-a55"),
        ("rpi2", "every instruction counts 1"),
    ],
)
def test_boards_have_the_weights_of_their_core(board: str, described: str) -> None:
    assert cost_model_for(load_board(board)).describe()["cost_model"] == described
