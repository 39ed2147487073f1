"""The program of a batch: every candidate beside the others over one shared piece of memory."""

from __future__ import annotations

import re
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgenext_tvm.board import Board
from edgenext_tvm.errors import UserError
from edgenext_tvm.tune.measure import Candidate
from edgenext_tvm.tune.measure_program.build_batch import BatchBuilder, _table, index_of, name_of
from edgenext_tvm.tune.measure_program.build_candidate import BuiltCandidate, build_candidate


@pytest.fixture
def built(host: Board, dense_candidates: Callable[..., list[Candidate]]) -> list[BuiltCandidate]:
    """Two candidates, built in this process."""
    candidates = dense_candidates(host, 2)
    return [build_candidate(each.func, each.decisions, name_of(i), host) for i, each in enumerate(candidates)]


@pytest.fixture
def builder(host: Board) -> Iterator[BatchBuilder]:
    builder = BatchBuilder(host, 1)
    yield builder
    builder.close()


def run(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def test_names_and_indices_are_one_to_one() -> None:
    assert [index_of(name_of(index)) for index in (0, 7, 31)] == [0, 7, 31]


def test_candidates_share_memory_as_large_as_the_largest_needs(built: list[BuiltCandidate]) -> None:
    table = _table(built)
    needed = max(sum(argument.bytes for argument in candidate.arguments) for candidate in built)
    assert f"unsigned char enx_measure_arena[{needed}] " in table
    starts = re.findall(r"\{(\d+), (\d+), ENX_FILL_", table)
    assert all(int(offset) % 64 == 0 and int(offset) + int(size) <= needed for offset, size in starts)


def test_each_candidate_has_its_turn_in_every_round(builder: BatchBuilder, built: list[BuiltCandidate]) -> None:
    program = builder._link(built, {})
    assert program is not None
    lines = run(program, "--rounds", "2", "--min-ms", "1").stdout.splitlines()
    first, second = map(name_of, (0, 1))
    assert [line.split()[:2] for line in lines] == [
        ["begin", first], ["begin", second], [first, "0"], [second, "0"], [first, "1"], [second, "1"], ["end"],
    ]  # fmt: skip


def test_candidates_may_be_skipped_or_run_once(builder: BatchBuilder, built: list[BuiltCandidate]) -> None:
    program = builder._link(built, {})
    assert program is not None
    done = run(program, "--once", "--skip", name_of(0))
    assert done.stdout.splitlines() == [f"begin {name_of(1)}", f"once {name_of(1)}", "end"]


def test_an_unknown_option_is_refused(builder: BatchBuilder, built: list[BuiltCandidate]) -> None:
    program = builder._link(built, {})
    assert program is not None
    done = run(program, "--turns", "3")
    assert (done.returncode, done.stderr) == (2, "unknown option '--turns'\n")


def test_a_batch_without_candidates_has_no_program(builder: BatchBuilder) -> None:
    assert builder.build([]).program is None


def test_a_full_disk_is_told(
    builder: BatchBuilder, built: list[BuiltCandidate], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builder._pool, "build", lambda requests: built)
    builder._link(built, {})
    # a limit on files stands in for a full disk
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(UserError, match=r"cannot write the measuring program to .*: File too large; free .*TMPDIR"):
            builder.build([])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_candidate_that_does_not_link_is_left_out(
    builder: BatchBuilder, built: list[BuiltCandidate], host: Board, unlinkable: Candidate
) -> None:
    errors: dict[int, str] = {}
    program = builder._link([*built, build_candidate(unlinkable.func, {}, name_of(2), host)], errors)
    assert program is not None
    assert run(program, "--once").stdout.splitlines()[-2:] == [f"once {name_of(1)}", "end"]
    assert list(errors) == [2]
    assert errors[2].startswith("cannot link: ")
    assert "enx_is_nowhere" in errors[2]
