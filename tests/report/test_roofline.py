"""Floors are lower bounds made of multiply-adds and bytes; gaps are what is left above them."""

from __future__ import annotations

import pytest

from edgenext_tvm.board import load_board
from edgenext_tvm.errors import UserError
from edgenext_tvm.kernels import Add, Conv2d, Dense, Depthwise, InvertedBottleneck, Lut, XcaApply, XcaScores
from edgenext_tvm.kernels.base import Kernel
from edgenext_tvm.report.host_peak import HostPeak, MemoryLevel
from edgenext_tvm.report.roofline import (
    InstructionPeak,
    LayerGap,
    Roofline,
    floor_instructions,
    floor_us,
    instructions_of_steps,
    kernel_bytes,
)

HOST = HostPeak(
    "vpdpbusd zmm",
    200e9,
    (MemoryLevel("L1", 1000, 100e9), MemoryLevel("L2", 10_000, 50e9), MemoryLevel("memory", None, 10e9)),
)


@pytest.mark.parametrize(
    ("moved", "expected"), [(1000, (0.01, "L1")), (2000, (0.04, "L2")), (100_000, (10.0, "memory"))]
)
def test_bytes_come_from_the_nearest_level_that_holds_them(moved: int, expected: tuple[float, str]) -> None:
    floor, bound = floor_us(HOST, 0, moved)
    assert (floor, bound) == (pytest.approx(expected[0]), expected[1])


def test_a_time_is_bound_by_multiplying_or_by_moving_whichever_takes_longer() -> None:
    assert floor_us(HOST, 200_000, 1000) == (pytest.approx(1.0), "multiply")
    assert floor_us(HOST, 200_000, 200_000) == (pytest.approx(20.0), "memory")


def test_instructions_of_multiplying_and_of_moving_add_up() -> None:
    peak = InstructionPeak(16, 32)
    assert floor_instructions(peak, 1600, 320) == (110, "multiply")
    assert floor_instructions(peak, 16, 320) == (11, "move")


# 4-byte biases and multipliers, 8 bytes of zero points
@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        (Dense(10, 8, 16), 10 * 8 + 8 * 16 + 16 * 8 + 8 + 10 * 16),
        (Dense(10, 8, 16, out_dtype="float32"), 10 * 8 + 8 * 16 + 16 * 8 + 8 + 10 * 16 * 4),
        (Conv2d(1, 8, 8, 3, 5, 4, 4, 4, 4), 8 * 8 * 3 + 4 * 4 * 3 * 5 + 5 * 8 + 8 + 2 * 2 * 5),
        # of 12 input channels 4 are read, of 16 output channels 4 written, and the others kept in place
        (
            Depthwise(1, 6, 6, 4, 3, 3, x_channels=12, x_offset=4, y_channels=16, inplace=True),
            36 * 4 + 9 * 4 + 4 * 8 + 8 + 16 * 4,
        ),
        (Lut(10, 4, x_channels=8, y_channels=8), 10 * 4 + 256 + 10 * 4),
        (Add(10, 4, a_channels=8, b_channels=12), 10 * 4 * 2 + 5 * 4 + 4 + 10 * 4),
        # scores read q and k, never v; the Gram matrix is scratch
        (XcaScores(10, 8, 2), 10 * 8 * 2 + 4 + 2 * 4 + 256 * 4 + 2 * 4 * 4),
        (XcaApply(10, 8, 2), 10 * 8 + 2 * 4 * 4 + 8 + 4 + 10 * 8),
    ],
    ids=lambda value: value.kind if isinstance(value, Kernel) else "",
)
def test_bytes_are_what_the_kernel_reads_and_writes_at_least_once(kernel: Kernel, expected: int) -> None:
    assert kernel_bytes(kernel) == expected


def test_a_fused_bottleneck_moves_no_hidden_tensor() -> None:
    t, ci, hidden, co = 100, 8, 32, 8
    fused = kernel_bytes(InvertedBottleneck(t, ci, hidden, co, "none"))
    apart = kernel_bytes(Dense(t, ci, hidden, "lut")) + kernel_bytes(Dense(t, hidden, co))
    assert fused == apart - 2 * t * hidden


def layer(name: str, kernel: str, floor: float, measured: float) -> LayerGap:
    return LayerGap(name, kernel, "", 1000, 10, "multiply", floor, measured)


HELD = Roofline(
    "us",
    HOST,
    (
        layer("a", "dense", 4, 5),
        layer("b", "layer_norm", 1, 6),
        layer("c", "inverted_bottleneck", 2, 5),
        layer("d", "dense", 1, 1),
    ),
)


def test_layers_and_kinds_come_by_gap_largest_first() -> None:
    assert [x.layer for x in HELD.by_gap] == ["b", "c", "a", "d"]
    assert [(x.name, x.steps, x.gap) for x in HELD.kinds] == [
        ("layer_norm", 1, 5),
        ("inverted_bottleneck", 1, 3),
        ("dense", 2, 1),
    ]


def test_pointwise_layers_are_products_fused_or_not() -> None:
    assert (HELD.pointwise.floor, HELD.pointwise.measured) == (7, 11)
    assert HELD.pointwise.share_of_roofline == pytest.approx(7 / 11)


def test_json_holds_every_layer_with_its_share_of_all_gaps() -> None:
    written = HELD.to_dict()
    assert written["total"]["gap"] == 9
    assert [round(x["share_of_gap"], 3) for x in written["layers"]] == [0.556, 0.333, 0.111, 0]
    assert sum(x["gap"] for x in written["kinds"]) == written["total"]["gap"]


def test_calls_of_one_function_share_its_count_equally() -> None:
    assert instructions_of_steps(["f", "g", "f"], {"f": 10, "g": 3, "libc": 5}) == [5, 3, 5]


def test_a_board_that_does_not_say_its_peak_is_a_mistake_with_the_fields_to_add() -> None:
    board = load_board("rpi4")
    silent = board.model_copy(update={"cpu": board.cpu.model_copy(update={"bytes_per_instruction": None})})
    with pytest.raises(UserError, match=r"board 'rpi4' does not say .* add int8_macs_per_instruction and bytes_per_"):
        InstructionPeak.of_board(silent)


@pytest.mark.parametrize(("board", "macs"), [("rpi5", 16), ("cortex-a55", 16), ("rpi4", 16 / 3), ("rpi2", 16 / 3)])
def test_bundled_boards_say_what_an_instruction_multiplies(board: str, macs: float) -> None:
    assert InstructionPeak.of_board(load_board(board)).macs_per_instruction == pytest.approx(macs, rel=1e-4)
