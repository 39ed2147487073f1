"""Real candidates: a small Dense at points of its space, one that never ends, one that reads where nothing is."""

from __future__ import annotations

import random

import pytest
from tvm.script import tirx as T

from edgenext_tvm.board import Board, load_board
from edgenext_tvm.kernels import Dense
from edgenext_tvm.schedules.default import space_of
from edgenext_tvm.tune.measure import Candidate


@T.prim_func(s_tir=True)
def endless(x: T.Buffer((8,), "float32"), y: T.Buffer((8,), "float32")):
    for i, j, lane in T.grid(2000000000, 1000, 8):
        with T.sblock("divide"):
            _n, _m, v = T.axis.remap("RRS", [i, j, lane])
            with T.init():
                y[v] = T.float32(1)
            y[v] = y[v] / x[v]


@T.prim_func(s_tir=True)
def reads_far_away(where: T.Buffer((64,), "int32"), x: T.Buffer((8,), "int32"), y: T.Buffer((64,), "int32")):
    for lane in range(64):
        with T.sblock("gather"):
            v = T.axis.spatial(64, lane)
            y[v] = x[where[v] * 400000000]


def dense_candidates(board: Board, count: int, kernel: Dense | None = None) -> list[Candidate]:
    """The hand-picked point first, then others drawn from the space, again and again if it has few."""
    func = (kernel or Dense(16, 24, 24)).prim_func("dense")
    space = space_of(func, board.isa, board.cpu.features)
    draw = random.Random(0)
    points = list(space.points())
    return [Candidate(func, space.default), *(Candidate(func, draw.choice(points)) for _ in range(count - 1))]


@pytest.fixture(scope="session")
def host() -> Board:
    return load_board("host")


@pytest.fixture
def candidates(host: Board) -> list[Candidate]:
    """Three small ones for this machine."""
    return dense_candidates(host, 3)


@pytest.fixture
def hanging() -> Candidate:
    return Candidate(endless, {})


@pytest.fixture
def crashing() -> Candidate:
    return Candidate(reads_far_away, {})
