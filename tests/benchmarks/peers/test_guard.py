"""A wrong answer does not race."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.peers.command import check_worker
from benchmarks.peers.failures import PeerUnavailable
from benchmarks.peers.guard import check_logits, least_cosine
from benchmarks.peers.interleave import Worker

CHECKOUT = Path(__file__).resolve().parents[3]
TOY = Path(__file__).with_name("toy_worker.py")
RNG = np.random.default_rng(1)
LOGITS = RNG.standard_normal((4, 5)).astype(np.float32)


def test_equal_logits_have_cosine_one_whatever_their_scale_and_offset() -> None:
    assert least_cosine(3 * LOGITS + 7, LOGITS) == pytest.approx(1, abs=1e-6)


def test_the_worst_image_counts() -> None:
    swapped = LOGITS.copy()
    swapped[2] *= -1
    assert least_cosine(swapped, LOGITS) == pytest.approx(-1, abs=1e-6)


@pytest.mark.parametrize("wrong", [np.zeros_like(LOGITS), np.full_like(LOGITS, np.nan), -LOGITS])
def test_constant_undefined_and_opposite_logits_are_refused(wrong: np.ndarray) -> None:
    with pytest.raises(PeerUnavailable, match=r"wrong answer: cosine .* against the float model, must be over 0\.9"):
        check_logits(wrong, LOGITS, 0.9)


def test_another_number_of_classes_is_refused() -> None:
    with pytest.raises(PeerUnavailable, match=r"logits of shape \[4, 4\], expected \[4, 5\]"):
        check_logits(LOGITS[:, :4], LOGITS, 0.9)


@pytest.fixture
def case(tmp_path: Path) -> Path:
    """Four images and the answers that the toy engine ought to give."""
    sys.path.insert(0, str(TOY.parent))
    from toy_worker import MATRIX

    sys.path.remove(str(TOY.parent))
    images = RNG.standard_normal((4, 3, 2, 2)).astype(np.float32)
    np.save(tmp_path / "probe.npy", images)
    np.save(tmp_path / "logits.npy", images.reshape(4, 12) @ MATRIX)
    return tmp_path


@pytest.mark.parametrize("behaviour", ["good", "wrong"])
def test_a_worker_is_believed_only_after_its_answers_were_compared(case: Path, behaviour: str) -> None:
    command = [sys.executable, str(TOY), "serve", str(case), behaviour, "1"]
    worker = Worker(command, {**os.environ, "PYTHONPATH": str(CHECKOUT)}, case / "worker.log")
    try:
        if behaviour == "good":
            assert check_worker(worker, case, 0.99) > 0.9999
        else:
            with pytest.raises(PeerUnavailable, match="wrong answer"):
                check_worker(worker, case, 0.9)
    finally:
        worker.close()
