"""Build processes outlive a batch; one that hangs or dies costs the candidate it was building."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest
import tvm

from edgenext_tvm.board import Board
from edgenext_tvm.tune.measure import Candidate
from edgenext_tvm.tune.measure_program.build_candidate import BuiltCandidate
from edgenext_tvm.tune.measure_program.build_pool import BuildPool, Request

LIMIT_S = 3.0


@pytest.fixture(scope="module")
def pool(host: Board) -> Iterator[BuildPool]:
    pool = BuildPool(host, 1, LIMIT_S)
    yield pool
    pool.close()


def request(candidate: Candidate, name: str) -> Request:
    return tvm.ir.save_json(candidate.func), dict(candidate.decisions), name


def test_a_candidate_becomes_an_object_with_the_layout_of_its_arguments(
    pool: BuildPool, candidates: list[Candidate]
) -> None:
    (built,) = pool.build([request(candidates[0], "first")])
    assert isinstance(built, BuiltCandidate)
    assert built.object_file.startswith(b"\x7fELF")
    assert b"\0first\0" in built.object_file
    # x [16, 24], w, bias, mult, qp and y [16, 24], in whole cache lines
    assert [argument.fill for argument in built.arguments] == ["BYTES", "BYTES", "INT32", "FLOAT32", "INT32", "BYTES"]
    assert (built.arguments[0].bytes, built.arguments[-1].bytes) == (384, 384)


def test_a_candidate_that_compiles_too_long_is_ended_and_the_rest_is_built(
    pool: BuildPool, candidates: list[Candidate], slow_to_compile: Candidate
) -> None:
    slow, quick = pool.build([request(slow_to_compile, "slow"), request(candidates[0], "quick")])
    assert slow == "building took longer than 3 s and was ended"
    assert isinstance(quick, BuiltCandidate)


def test_a_closed_pool_leaves_no_process(pool: BuildPool, candidates: list[Candidate]) -> None:
    pool.build([request(candidates[0], "first")])
    process = pool._workers[0].process
    pool.close()
    assert process.poll() == -signal.SIGKILL


@pytest.mark.slow
def test_a_build_process_that_dies_costs_one_candidate(
    pool: BuildPool, candidates: list[Candidate], slow_to_compile: Candidate
) -> None:
    pool.build([request(candidates[0], "warm")])
    victim = pool._workers[0].process.pid

    def kill() -> None:
        time.sleep(1)
        os.kill(victim, signal.SIGSEGV)

    killer = threading.Thread(target=kill)
    killer.start()
    died, quick = pool.build([request(slow_to_compile, "slow"), request(candidates[0], "quick")])
    killer.join()
    assert str(died).startswith("the compiler crashed, with SIGSEGV")
    assert isinstance(quick, BuiltCandidate)
