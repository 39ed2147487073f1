"""The hand-picked point first, nothing twice, everything in the end; costs decide where to look."""

from __future__ import annotations

import pytest
from tvm.s_tir import meta_schedule as ms

from edgenext_tvm.board import Board
from edgenext_tvm.kernels import Dense
from edgenext_tvm.schedules.default import space_of
from edgenext_tvm.schedules.space import Knob, Space
from edgenext_tvm.tune.points import point_of
from edgenext_tvm.tune.search import PointSearch, cost_of, open_search
from edgenext_tvm.tune.tasks import Task, canonical

KNOBS = (Knob("rows", (1, 2, 4, 8), 4), Knob("vectors", (1, 2, 3), 2), Knob("group", (1, 2, 4, 8, 16), 1))
BEST = (2, 3, 8)


def small_space() -> Space:
    return Space("test.small", lambda _: None, KNOBS, lambda d: d["rows"] * d["vectors"] <= 12)  # type: ignore[arg-type,return-value]


def cost(point: tuple[int, ...]) -> float:
    """Smooth, with its least at BEST."""
    distances = (knob.values.index(a) - knob.values.index(b) for knob, a, b in zip(KNOBS, point, BEST, strict=True))
    return 1.0 + sum(abs(distance) for distance in distances)


def test_the_first_proposal_is_the_hand_picked_point() -> None:
    assert PointSearch(small_space(), seed=3).propose(5)[0] == (4, 2, 1)


def test_every_valid_point_is_proposed_once_and_then_none() -> None:
    search = PointSearch(small_space(), seed=1)
    seen = []
    while batch := search.propose(7):
        search.learn((point, cost(point)) for point in batch)
        seen += batch
    assert len(seen) == len(set(seen)) == sum(1 for _ in small_space().points())
    assert all(rows * vectors <= 12 for rows, vectors, _ in seen)
    assert search.left == 0 and search.best == BEST


def test_equal_seeds_propose_the_same_and_others_differ() -> None:
    first, second, third = (PointSearch(small_space(), seed).propose(12) for seed in (1, 1, 2))
    assert first == second != third


def test_known_points_are_not_proposed_again() -> None:
    known = {(4, 2, 1): 3.0, (1, 1, 1): 9.0}
    search = PointSearch(small_space(), 0, known)
    proposed = [point for _ in range(20) for point in search.propose(8)]
    assert not known.keys() & set(proposed)
    assert search.left == 0


def test_neighbours_of_the_best_are_looked_at_first() -> None:
    search = PointSearch(small_space(), 0, {BEST: 1.0, (8, 1, 1): 7.0, (4, 2, 1): 5.0})
    near = [p for p in search.propose(8) if sum(a != b for a, b in zip(p, BEST, strict=True)) == 1]
    assert len(near) >= 4


def test_the_least_is_found_in_half_of_the_space() -> None:
    search = PointSearch(small_space(), seed=5)
    for _ in range(5):
        search.learn([(point, cost(point)) for point in search.propose(5)])
    assert search.best == BEST


def test_a_point_that_failed_is_neither_best_nor_proposed_again() -> None:
    search = PointSearch(small_space(), seed=0)
    (first,) = search.propose(1)
    search.learn([(first, None)])
    assert search.best is None
    assert first not in [point for _ in range(20) for point in search.propose(8)]


@pytest.mark.parametrize(("rounds", "expected"), [([3.0], 3.0), ([9.0, 1.0, 2.0], 2.0), ([4.0, 1.0, 2.0, 99.0], 3.0)])
def test_the_cost_is_the_median(rounds: list[float], expected: float) -> None:
    assert cost_of(rounds) == expected


def test_metaschedule_drives_the_search(host: Board) -> None:
    func = canonical(Dense(64, 32, 48, "lut").prim_func("kernel"))
    space = space_of(func, host.isa, host.cpu.features)
    task = Task(func, space, 1, ("layer",), 1)
    search = PointSearch(space, seed=0)
    strategy = open_search(task, search, max_trials=10, batch=4)
    sizes = []
    while (candidates := strategy.generate_measure_candidates()) is not None:
        points = [point_of(candidate.sch) for candidate in candidates]
        assert all(family == space.family for family, _ in points)
        costs = [1.0 + sum(decisions.values()) for _, decisions in points]
        strategy.notify_runner_results(candidates, [ms.runner.RunnerResult([c], None) for c in costs])
        sizes.append(len(points))
    assert sizes == [4, 4, 2]
    assert len(search.cost) == 10 and search.point(space.default) in search.cost
    assert search.cost[search.best] == min(search.cost.values())
