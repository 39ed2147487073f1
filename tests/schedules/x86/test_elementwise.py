from __future__ import annotations

import pytest

from edgenext_tvm.kernels import Add, Lut


@pytest.mark.parametrize(
    "kernel",
    [Lut(5, 3), Lut(8, 200), Lut(64, 28, 88, 60, 88, 60, inplace=True), Lut(9, 64, 70, 3, 80, 5)],
    ids=lambda k: k.task_hint.replace(" ", "-"),
)
def test_look_ups_give_the_twins_bits(check, kernel: Lut) -> None:
    check(kernel)


@pytest.mark.parametrize(
    "kernel",
    [
        Add(5, 3),
        Add(64, 30, 88, 0, 88, 30),
        Add(49, 100),
        Add(1, 64),
        Add(5, 3, a_dtype="int16", out_dtype="int16"),
        Add(49, 100, b_dtype="int16"),
        Add(8, 88, a_dtype="int16", b_dtype="int16", out_dtype="int16"),
    ],
    ids=lambda k: k.task_hint.replace(" ", "-"),
)
def test_sums_give_the_twins_bits(check, kernel: Add) -> None:
    check(kernel)
