"""The ledger's arithmetic, on logits that are written down."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgenext_tvm.accuracy.ledger import closeness, fill_ledger, mean_kl

TRUE = np.array([[2.0, 0.0, 0.0], [0.0, 1.0, 3.0]], np.float32)
OFF = np.array([[0.0, 2.0, 0.0], [0.0, 1.0, 3.0]], np.float32)


def test_kl_is_that_of_the_two_softmaxes() -> None:
    p = math.exp(2) / (math.exp(2) + 2)
    q = 1 / (math.exp(2) + 2)
    # image 0: classes 0 and 1 changed places, each logit by 2; image 1: nothing
    assert mean_kl(TRUE, OFF) == pytest.approx((p - q) * 2 / 2)
    assert mean_kl(TRUE, TRUE) == 0.0


def test_kl_does_not_see_what_softmax_does_not_see_and_survives_large_logits() -> None:
    assert mean_kl(TRUE, TRUE + 1000) == pytest.approx(0.0, abs=1e-12)
    assert mean_kl(np.array([[1000.0, 0.0]]), np.array([[0.0, 1000.0]])) == pytest.approx(1000.0)


def test_closeness_counts_images() -> None:
    found = closeness(OFF, TRUE)
    assert (found.agreement, found.cosine) == (0.5, pytest.approx(0.5))


def test_each_row_is_held_against_the_first_and_the_one_above() -> None:
    rows = fill_ledger({"a": TRUE, "b": OFF, "c": OFF}, np.array([0, 2]))
    assert [row.stage for row in rows] == ["a", "b", "c"]
    assert [row.top1 for row in rows] == [1.0, 0.5, 0.5]
    assert [row.top5 for row in rows] == [1.0, 1.0, 1.0]
    assert [row.to_float.agreement for row in rows] == [1.0, 0.5, 0.5]
    assert rows[0].step is None and rows[0].step_top1 is None
    assert (rows[1].step_top1, rows[2].step_top1) == (-0.5, 0.0)
    assert (rows[1].step.agreement, rows[2].step.agreement, rows[2].step.kl) == (0.5, 1.0, 0.0)


def test_without_labels_there_is_no_accuracy() -> None:
    first, second = fill_ledger({"a": TRUE, "b": OFF}, None)
    assert (first.top1, second.top5, second.step_top1) == (None, None, None)
    assert second.to_dict()["step"]["agreement"] == 0.5
