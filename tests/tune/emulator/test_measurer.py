"""Real candidates for Arm boards, ranked by what they execute under qemu."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from edgenext_tvm.board import Board, load_board
from edgenext_tvm.errors import UserError
from edgenext_tvm.kernels import Dense
from edgenext_tvm.tune.emulator import EmulatorMeasurer, PlainCount
from edgenext_tvm.tune.emulator.cost_model import count_classes
from edgenext_tvm.tune.measure import Candidate
from edgenext_tvm.tune.noise import measure_noise

pytestmark = pytest.mark.qemu

Draw = Callable[..., list[Candidate]]


@pytest.fixture(scope="module")
def rpi5() -> Board:
    return load_board("rpi5")


@pytest.fixture(scope="module")
def measurer(rpi5: Board) -> Iterator[EmulatorMeasurer]:
    measurer = EmulatorMeasurer(rpi5, limit_ms=2000, build_workers=1)
    yield measurer
    measurer.close()


def test_a_cost_is_exact_and_grows_with_the_work(
    measurer: EmulatorMeasurer, rpi5: Board, dense_candidates: Draw
) -> None:
    small, large = (dense_candidates(rpi5, 1, Dense(t, 64, 64))[0] for t in (16, 160))
    first, second, again = measurer.measure([small, large, small])
    assert first == again
    assert len(first.seconds) == 1
    assert 8 < second.seconds[0] / first.seconds[0] < 12
    assert measure_noise(measurer, small, copies=2).relative == 0


def test_the_products_of_a_dense_are_the_dot_products_that_ran(
    measurer: EmulatorMeasurer, rpi5: Board, dense_candidates: Draw
) -> None:
    (candidate,) = dense_candidates(rpi5, 1, Dense(32, 64, 64))
    counts = count_classes(measurer.executed(candidate))
    # an sdot of 128 bits adds 16 products
    assert counts["simd_dot"] == 32 * 64 * 64 / 16


def test_a_candidate_that_fails_does_not_stop_the_others(
    measurer: EmulatorMeasurer,
    rpi5: Board,
    dense_candidates: Draw,
    hanging: Candidate,
    crashing: Candidate,
    killing: Candidate,
) -> None:
    first, second = dense_candidates(rpi5, 2)
    measured = measurer.measure([first, hanging, crashing, killing, Candidate(first.func, {"tiles": 1}), second])
    assert [measurement.ok for measurement in measured] == [True, False, False, False, False, True]
    assert measured[1].error == "did not end within 2000 ms of processor time"
    assert measured[2].error == "crashed: Segmentation fault"
    assert measured[3].error == "ended by SIGKILL"
    assert str(measured[4].error).startswith("cannot build: arm64_dotprod.dense has the knobs")
    with pytest.raises(UserError, match="crashed: Segmentation fault"):
        measurer.executed(crashing)


def test_it_says_that_it_measures_no_time(measurer: EmulatorMeasurer) -> None:
    described = measurer.describe()
    assert (described["measurer"], described["unit"]) == ("emulator", "instructions")
    assert described["meaning"] == "emulated: weighted executed instructions, not time"
    assert described["emulator"].startswith("qemu-aarch64 cortex-a76, qemu-aarch64 version ")
    assert described["cost_model"] == "weights of cortex-a76"
    assert measurer.notes() == ("emulated: weighted instructions of qemu-aarch64 cortex-a76, not time",)


def test_another_cost_model_may_be_given(rpi5: Board) -> None:
    measurer = EmulatorMeasurer(rpi5, PlainCount())
    assert measurer.describe()["cost_model"] == "every instruction counts 1"
    measurer.close()


def test_a_board_without_an_emulator_says_what_to_add() -> None:
    with pytest.raises(UserError, match="board 'host' names no emulator"):
        EmulatorMeasurer(load_board("host"))


@pytest.mark.slow
def test_armv7_boards_count_every_instruction_alike(dense_candidates: Draw) -> None:
    rpi2 = load_board("rpi2")
    measurer = EmulatorMeasurer(rpi2, build_workers=1)
    (candidate,) = dense_candidates(rpi2, 1)
    (measured,) = measurer.measure([candidate])
    executed = sum(block.instructions * block.executions for block in measurer.executed(candidate))
    assert measured.seconds == (pytest.approx(executed * 1e-9),)
    measurer.close()
