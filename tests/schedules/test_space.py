from __future__ import annotations

import pytest

from edgenext_tvm.errors import UserError
from edgenext_tvm.kernels import Dense
from edgenext_tvm.schedules import Knob, Space, space_of


def two_knobs() -> Space:
    knobs = (Knob("rows", (1, 2, 4), 2), Knob("vectors", (1, 3), 3))
    return Space("test.dense", dict, knobs, lambda d: d["rows"] * d["vectors"] <= 6)


def test_the_default_is_the_hand_picked_point_and_is_built_without_decisions():
    space = two_knobs()
    assert space.default == {"rows": 2, "vectors": 3}
    assert space.at() == space.default


def test_points_are_those_whose_values_go_together():
    points = [(p["rows"], p["vectors"]) for p in two_knobs().points()]
    assert points == [(1, 1), (1, 3), (2, 1), (2, 3), (4, 1)]


@pytest.mark.parametrize(
    ("decisions", "message"),
    [
        ({"rows": 2}, "test.dense has the knobs ['rows', 'vectors'], but ['rows'] were given"),
        ({"rows": 3, "vectors": 1}, "test.dense: rows is 3; allowed: 1, 2, 4"),
        ({"rows": 4, "vectors": 3}, "test.dense: {'rows': 4, 'vectors': 3} do not go together"),
    ],
)
def test_a_point_outside_the_space_is_refused(decisions, message):
    with pytest.raises(UserError) as error:
        two_knobs().at(decisions)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("isa", ["x86_64", "aarch64", "armv7", "c"])
def test_every_kernel_has_a_space_on_every_instruction_set(isa):
    func = Dense(16, 24, 48).prim_func("k")
    space = space_of(func, isa)
    assert space.family == f"{isa}.dense"
    assert space.default in list(space.points())
