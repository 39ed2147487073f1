"""The ledger of real builds: its stages, what they must equal, and labels."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from edgenext_tvm.accuracy import ledger
from edgenext_tvm.accuracy.measure_ledger import measure_ledger
from edgenext_tvm.accuracy.open_model import MeasuredModel, open_measured
from edgenext_tvm.errors import UserError
from edgenext_tvm.quantize import open_images
from edgenext_tvm.verify.verify import verify

ON_HOST = (ledger.NATIVE, ledger.PREPROCESSED, ledger.WEIGHTS, ledger.SIMULATED, ledger.HOST)


def test_the_stages_of_a_build_for_this_machine_in_order(small: MeasuredModel, labelled: Path) -> None:
    found = measure_ledger(small, open_images(labelled))
    assert tuple(row.stage for row in found.rows) == ON_HOST
    assert (found.images, found.board, found.runner) == ("images.npz", "host", None)
    assert all(row.images == 6 for row in found.rows)
    assert all(row.top5 == 1.0 for row in found.rows), "five classes"
    values = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert [row["stage"] for row in values["stages"]] == list(ON_HOST)


def test_each_stage_adds_little_and_float_agrees_with_itself(small: MeasuredModel) -> None:
    native, *others = measure_ledger(small, open_images("synthetic:20")).rows
    assert native.to_float == ledger.Closeness(1.0, pytest.approx(1.0), 0.0)
    assert native.top1 is None
    for row in others:
        assert row.step is not None and 0 <= row.step.kl < 0.05 and row.to_float.cosine > 0.95
    # the kernels compute what PyTorch simulates, up to roundings of single steps
    assert others[-1].step.cosine > 0.9995


def test_images_that_need_no_resizing_lose_nothing_in_preprocessing(small: MeasuredModel, tmp_path: Path) -> None:
    size = small.preprocessing.resize_size
    images = np.random.default_rng(0).integers(0, 256, (3, size, size, 3)).astype(np.uint8)
    np.savez(tmp_path / "exact.npz", images=images)
    row = measure_ledger(small, open_images(tmp_path / "exact.npz")).rows[1]
    assert row.stage == ledger.PREPROCESSED and row.step.kl < 1e-9


def test_top1_is_that_of_the_labels(small: MeasuredModel, labelled: Path) -> None:
    images = open_images(labelled)
    inputs = torch.stack([torch.from_numpy(small.preprocessing(images.image(i))) for i in range(6)])
    with torch.no_grad():
        best = small.float_model(inputs).argmax(1).tolist()
    row = measure_ledger(small, images).rows[1]
    assert row.top1 == pytest.approx(np.mean([best[i] == images.label(i) for i in range(6)]))


def test_the_librarys_row_is_what_verify_measures(bundled: MeasuredModel) -> None:
    rows = measure_ledger(bundled, open_images("synthetic:4")).rows
    report = verify(bundled.build.path, "synthetic:4", reference_images=1)
    # verify compares with float after the library's preprocessing, as the steps from there on do together
    assert rows[1].stage == ledger.PREPROCESSED and rows[-1].stage == ledger.HOST
    assert report.cosine > 0.99 and rows[-1].to_float.cosine == pytest.approx(report.cosine, abs=2e-3)


@pytest.mark.slow
@pytest.mark.qemu
def test_another_board_has_a_row_of_its_own_with_the_same_bits(rpi4_build: Path) -> None:
    found = measure_ledger(open_measured(rpi4_build), open_images("synthetic:2"))
    assert tuple(row.stage for row in found.rows) == (*ON_HOST, ledger.BOARD)
    assert found.runner == "qemu-aarch64 cortex-a72"
    assert (found.rows[-1].step.kl, found.rows[-1].step.agreement) == (0.0, 1.0)


def test_a_float32_build_has_no_quantized_stages(small: MeasuredModel) -> None:
    found = measure_ledger(dataclasses.replace(small, recipe=None), open_images("synthetic:2"))
    assert tuple(row.stage for row in found.rows) == (ledger.NATIVE, ledger.PREPROCESSED, ledger.HOST)


def test_labels_beyond_the_models_classes_are_refused(small: MeasuredModel, tmp_path: Path) -> None:
    images = np.zeros((2, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "many.npz", images=images, labels=np.array([0, 9]))
    with pytest.raises(UserError, match="has labels up to 9, but the model has 5 classes"):
        measure_ledger(small, open_images(tmp_path / "many.npz"))
