from __future__ import annotations

import pytest

from edgenext_tvm.kernels import XcaApply, XcaScores
from edgenext_tvm.schedules.x86_avx2.attention import is_supported

SHAPES = [(5, 16, 4), (49, 88, 4), (16, 34, 2), (64, 168, 4), (8, 62, 1), (3, 100, 4), (7, 12, 4)]


@pytest.mark.parametrize(("t", "c", "heads"), SHAPES)
def test_scores_give_the_twins_bits(check_avx2, t: int, c: int, heads: int) -> None:
    check_avx2(XcaScores(t, c, heads))


@pytest.mark.parametrize(("t", "c", "heads"), SHAPES)
def test_apply_gives_the_twins_bits(check_avx2, t: int, c: int, heads: int) -> None:
    check_avx2(XcaApply(t, c, heads))


def test_tiny_and_wide_heads_are_left_to_the_portable_schedule() -> None:
    assert not is_supported(XcaApply(5, 4, 4))
    assert not is_supported(XcaApply(5, 7, 1))
    assert not is_supported(XcaScores(5, 63, 1))
