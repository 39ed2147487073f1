"""Real candidates: a small Dense at points of its space, one that never ends, one that reads where nothing is."""

from __future__ import annotations

import random
from collections.abc import Callable

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


Draw = Callable[..., list[Candidate]]


@pytest.fixture(scope="session")
def dense_candidates() -> Draw:
    """(board, count, kernel) -> the hand-picked point first, then others, again and again if the space has few."""

    def draw(board: Board, count: int, kernel: Dense | None = None) -> list[Candidate]:
        func = (kernel or Dense(16, 24, 24)).prim_func("dense")
        space = space_of(func, board.isa, board.cpu.features)
        generator = random.Random(0)
        points = list(space.points())
        return [Candidate(func, space.default), *(Candidate(func, generator.choice(points)) for _ in range(count - 1))]

    return draw


@pytest.fixture(scope="session")
def host() -> Board:
    return load_board("host")


@pytest.fixture
def candidates(host: Board, dense_candidates: Draw) -> list[Candidate]:
    """Three small ones for this machine."""
    return dense_candidates(host, 3)


@pytest.fixture
def hanging() -> Candidate:
    return Candidate(endless, {})


@pytest.fixture
def crashing() -> Candidate:
    return Candidate(reads_far_away, {})


@T.prim_func(s_tir=True)
def kills_the_process(x: T.Buffer((8,), "int32"), y: T.Buffer((8,), "int32")):
    for lane in range(8):
        with T.sblock("signal"):
            v = T.axis.spatial(8, lane)
            y[v] = T.call_extern("int32", "raise", T.int32(9)) + x[v]


@T.prim_func(s_tir=True)
def takes_long_to_compile(x: T.Buffer((8,), "float32"), y: T.Buffer((8,), "float32")):
    for i in T.unroll(100000):
        for lane in range(8):
            with T.sblock("divide"):
                _n, v = T.axis.remap("RS", [i, lane])
                with T.init():
                    y[v] = T.float32(1)
                y[v] = y[v] / x[v]


@T.prim_func(s_tir=True)
def calls_what_is_nowhere(x: T.Buffer((8,), "int32"), y: T.Buffer((8,), "int32")):
    for lane in range(8):
        with T.sblock("call"):
            v = T.axis.spatial(8, lane)
            y[v] = T.call_extern("int32", "enx_is_nowhere", x[v])


@pytest.fixture
def unlinkable() -> Candidate:
    return Candidate(calls_what_is_nowhere, {})


@pytest.fixture
def killing() -> Candidate:
    return Candidate(kills_the_process, {})


@pytest.fixture
def slow_to_compile() -> Candidate:
    return Candidate(takes_long_to_compile, {})
