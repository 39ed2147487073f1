"""What the measuring program prints becomes measurements, also when it breaks off in the middle of a line."""

from __future__ import annotations

import pytest

from edgenext_tvm.tune.measure import Measurement
from edgenext_tvm.tune.measure_program.run_batch import Lines, TimingOptions, _culprit, how_it_ended

WHOLE = """begin enx_candidate_0
begin enx_candidate_2
failed enx_candidate_2 crashed: Segmentation fault
enx_candidate_0 0 1.5e-06
enx_candidate_0 1 1.25e-06
end
"""


def read(text: str) -> Lines:
    lines = Lines()
    lines.add(text)
    return lines


def test_each_round_is_a_number_and_a_failure_its_text() -> None:
    lines = read(WHOLE)
    assert lines.complete
    assert lines.measurement(0, "?") == Measurement((1.5e-06, 1.25e-06))
    assert lines.measurement(2, "?") == Measurement((), "crashed: Segmentation fault")
    assert lines.measurement(1, "it never began") == Measurement((), "it never began")


def test_a_broken_last_line_is_not_taken_for_a_number() -> None:
    lines = read(WHOLE[: WHOLE.index("25e-06")])
    assert not lines.complete
    assert lines.measurement(0, "?") == Measurement((1.5e-06,))


@pytest.mark.parametrize(
    ("text", "culprit"),
    [
        ("begin enx_candidate_0\nbegin enx_candidate_1\n", 1),
        ("begin enx_candidate_0\nbegin enx_candidate_1\nenx_candidate_0 0 1e-6\n", 1),
        ("begin enx_candidate_0\nbegin enx_candidate_1\nenx_candidate_0 0 1e-6\nenx_candidate_1 0 1e-6\n", 0),
    ],
)
def test_who_ended_the_process_is_whose_turn_it_was(text: str, culprit: int) -> None:
    assert _culprit(read(text), [0, 1]) == culprit


def test_options_become_arguments_of_the_program() -> None:
    assert TimingOptions(3, 4, 500).arguments() == ["--rounds", "3", "--min-ms", "4", "--limit-ms", "500"]
    assert TimingOptions(core=1).arguments()[-2:] == ["--core", "1"]


def test_endings_are_named() -> None:
    assert [how_it_ended(status) for status in (0, 2, -11)] == [None, "ended with status 2", "ended by SIGSEGV"]
