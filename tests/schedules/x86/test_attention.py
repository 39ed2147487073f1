from __future__ import annotations

import pytest

from edgenext_tvm.kernels import XcaApply, XcaScores
from edgenext_tvm.schedules.x86.attention import is_supported

SHAPES = [(5, 16, 4), (49, 88, 4), (16, 34, 2), (64, 168, 4), (8, 64, 1), (3, 100, 4)]


@pytest.mark.parametrize(("t", "c", "heads"), SHAPES)
def test_scores_give_the_twins_bits(check, t: int, c: int, heads: int) -> None:
    assert is_supported(XcaScores(t, c, heads))
    check(XcaScores(t, c, heads))


@pytest.mark.parametrize(("t", "c", "heads"), SHAPES)
def test_apply_gives_the_twins_bits(check, t: int, c: int, heads: int) -> None:
    assert is_supported(XcaApply(t, c, heads))
    check(XcaApply(t, c, heads))


def test_tiny_and_wide_heads_are_left_to_the_portable_schedule() -> None:
    assert not is_supported(XcaApply(5, 12, 4))
    assert not is_supported(XcaScores(5, 65, 1))
