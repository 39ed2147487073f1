"""What quantization cost, measured on images."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from edgenext_tvm.quantize import open_images
from edgenext_tvm.quantize.accuracy import compare
from edgenext_tvm.quantize.calibrate import image_batches


@pytest.fixture
def labelled(small_model, small_preprocessing, tmp_path):
    """Three images whose labels are what the float model says, but for the last."""
    values = np.random.default_rng(1).integers(0, 256, (3, 40, 40, 3), np.uint8)
    np.savez(tmp_path / "x.npz", images=values)
    with torch.no_grad():
        images = open_images(tmp_path / "x.npz")
        classes = [int(small_model(x).argmax()) for x in image_batches(images, small_preprocessing)]
    labels = np.array([classes[0], classes[1], (classes[2] + 1) % 5])
    np.savez(tmp_path / "x.npz", images=values, labels=labels)
    return open_images(tmp_path / "x.npz")


def test_top1_counts_right_answers(small_model, small_program, labelled) -> None:
    accuracy = compare(small_program, small_model, labelled, quiet=True)
    assert accuracy.num_images == 3
    assert accuracy.float_top1 == pytest.approx(2 / 3)
    assert "top-1 float 66.67%" in str(accuracy)


def test_program_compared_with_itself_is_perfect(small_program, labelled) -> None:
    accuracy = compare(small_program, small_program, labelled, quiet=True)
    assert accuracy.agreement == 1.0
    assert accuracy.signal_to_noise_db == math.inf
    assert accuracy.float_top1 == accuracy.quantized_top1


def test_images_without_labels_give_agreement_only(small_model, small_program) -> None:
    accuracy = compare(small_program, small_model, open_images("synthetic:2"), quiet=True)
    assert accuracy.float_top1 is None
    assert accuracy.quantized_top1 is None
    assert "top-1" not in str(accuracy)
    assert 20 < accuracy.signal_to_noise_db < 80
