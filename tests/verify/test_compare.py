"""Measures of agreement, each against a value that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edgenext_tvm.verify.compare import accuracy, compare_logits, same_bits, top_classes


def logits(*rows: list[float]) -> np.ndarray:
    return np.asarray(rows, np.float32)


def test_equal_logits_agree_in_everything() -> None:
    some = np.random.default_rng(0).normal(size=(4, 10)).astype(np.float32)
    agreement = compare_logits(some, some)
    assert (agreement.relative_l2, agreement.max_abs_error) == (0.0, 0.0)
    assert agreement.cosine == pytest.approx(1.0)
    assert (agreement.top1_agreement, agreement.top5_agreement) == (1.0, 1.0)


def test_the_error_is_relative_to_the_reference() -> None:
    agreement = compare_logits(logits([3, 0], [0, 4]), logits([0, 0], [0, 4]))
    assert agreement.relative_l2 == pytest.approx(3 / 4)
    assert agreement.max_abs_error == 3.0


def test_the_cosine_is_the_mean_over_images() -> None:
    agreement = compare_logits(logits([1, 0], [1, 1]), logits([2, 0], [1, -1]))
    assert agreement.cosine == pytest.approx((1 + 0) / 2)


def test_all_zero_logits_have_cosine_zero_not_nan() -> None:
    assert compare_logits(logits([0, 0]), logits([1, 2])).cosine == 0.0
    assert np.isfinite(compare_logits(logits([1, 2]), logits([0, 0])).relative_l2)


def test_top5_looks_for_the_reference_s_best_class_among_five() -> None:
    reference = logits([0, 0, 0, 0, 0, 0, 9], [9, 0, 0, 0, 0, 0, 0])
    found_at_five = logits([5, 4, 3, 2, 0, 0, 1], [0, 1, 2, 3, 4, 5, 6])
    agreement = compare_logits(found_at_five, reference)
    assert (agreement.top1_agreement, agreement.top5_agreement) == (0.0, 0.5)


def test_with_fewer_than_five_classes_top5_is_all_of_them() -> None:
    assert compare_logits(logits([1, 2]), logits([2, 1])).top5_agreement == 1.0


def test_equal_logits_rank_by_class_number_as_on_the_device() -> None:
    assert top_classes(logits([1, 3, 3, 2]), 3).tolist() == [[1, 2, 3]]


def test_accuracy_counts_right_labels() -> None:
    assert accuracy(logits([1, 0], [0, 1], [0, 1]), np.asarray([0, 1, 0])) == pytest.approx(2 / 3)


def test_same_bits_is_stricter_than_equality() -> None:
    zero, nan = logits([0.0]), logits([np.nan])
    assert same_bits(nan, nan.copy())
    assert not same_bits(zero, logits([-0.0]))
    assert not same_bits(zero, zero.astype(np.float64))
    assert not same_bits(zero, zero.reshape(1, 1, 1))
