"""Verification of real builds: what a good one gets, and that a wrong one is caught."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from edgenext_tvm.errors import UserError
from edgenext_tvm.verify.build_folder import BOARD_FILE, open_build
from edgenext_tvm.verify.device import benchmark, profile, run_logits, selftest
from edgenext_tvm.verify.float_model import float_logits, qdq_logits
from edgenext_tvm.verify.runner import HostRunner
from edgenext_tvm.verify.verify import verify

KEYS = {
    "images", "relative_l2", "cosine", "max_abs_error", "top1_agreement", "top5_agreement", "top1_float", "top1_int8",
    "bit_identical_to_host", "bit_identical_to_reference",
}  # fmt: skip


@pytest.fixture
def copied_build(host_build: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(host_build, tmp_path / "build"))


def labelled_images(path: Path, labels: list[int]) -> Path:
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 40, 50, 3)).astype(np.uint8)
    np.savez(path, images=images, labels=np.asarray(labels, np.uint8))
    return path


def test_a_good_build_passes_and_reports_every_measure(host_build: Path) -> None:
    report = verify(host_build, "synthetic:3")
    values = report.to_dict()
    assert set(values) >= KEYS and json.loads(json.dumps(values)) == values
    assert (report.images, report.reference_images) == (3, 3)
    assert report.selftest and report.bit_identical_to_reference is True and report.bit_identical_to_host is True
    assert report.passed
    assert report.relative_l2 < 0.3 and report.cosine > 0.95
    assert report.relative_l2_to_qdq is not None and report.relative_l2_to_qdq < 0.1
    assert (report.top1_float, report.top1_int8) == (None, None)
    assert report.compared_with == "float32 weights"


def test_labels_give_the_accuracy_of_both(host_build: Path, tmp_path: Path) -> None:
    images = labelled_images(tmp_path / "images.npz", [0, 1, 2, 3])
    report = verify(host_build, images, limit=2)
    assert report.images == 2
    assert report.top1_float in (0.0, 0.5, 1.0) and report.top1_int8 in (0.0, 0.5, 1.0)


def test_labels_of_other_classes_are_refused(host_build: Path, tmp_path: Path) -> None:
    images = labelled_images(tmp_path / "images.npz", [10])
    with pytest.raises(UserError, match="has labels up to 10, but the model has 10 classes"):
        verify(host_build, images)


@pytest.mark.qemu
def test_an_emulated_board_gives_the_bits_of_the_host_and_of_the_twins(rpi4_build: Path) -> None:
    report = verify(rpi4_build, "synthetic:2")
    assert report.runner == "qemu-aarch64 cortex-a72"
    assert report.bit_identical_to_host is True and report.bit_identical_to_reference is True
    assert report.passed


def test_a_program_with_one_wrong_constant_is_caught(copied_build: Path) -> None:
    program = open_build(copied_build).program
    content = bytearray(program.read_bytes())
    library = (copied_build / "lib" / "objects" / "weights.o").read_bytes()
    # a stretch of weights as it stands in the object, found again in the linked program
    at = next(
        position
        for start in range(len(library) // 3, len(library) - 64, 64)
        if len(set(library[start : start + 64])) > 20 and (position := content.find(library[start : start + 64])) > 0
    )
    content[at : at + 64] = bytes(byte ^ 0x55 for byte in content[at : at + 64])
    program.write_bytes(content)
    report = verify(copied_build, "synthetic:2")
    assert report.bit_identical_to_reference is False
    assert not report.selftest
    assert not report.passed


def test_batches_of_unequal_images_keep_their_order(host_build: Path) -> None:
    build, rng = open_build(host_build), np.random.default_rng(2)
    shapes = [(40, 40, 3), (40, 40, 3), (70, 50, 3), (40, 40, 3)]
    images = [rng.integers(0, 256, shape).astype(np.uint8) for shape in shapes]
    together = run_logits(build, HostRunner(), images)
    alone = np.concatenate([run_logits(build, HostRunner(), [image]) for image in images])
    assert together.shape == (4, 10) and np.array_equal(together, alone)


def test_the_float_and_the_quantized_program_of_a_build_agree_roughly(host_build: Path) -> None:
    build = open_build(host_build)
    x = np.random.default_rng(3).normal(size=(1, 64, 64, 3)).astype(np.float32)
    in_float, name = float_logits(build)
    quantized = qdq_logits(build)
    assert name == "float32 weights" and quantized is not None
    error = np.linalg.norm(in_float(x) - quantized(x)) / np.linalg.norm(in_float(x))
    assert 0 < error < 0.3


def test_a_build_without_weights_is_compared_with_its_quantized_program(copied_build: Path) -> None:
    (copied_build / "model.safetensors").unlink()
    assert float_logits(open_build(copied_build))[1] == "QDQ program"
    (copied_build / "program.pt2").unlink()
    with pytest.raises(UserError, match="holds neither weights nor a program to compare with; compile the model again"):
        float_logits(open_build(copied_build))


def test_times_and_profiles_are_measured_on_the_device(host_build: Path) -> None:
    build = open_build(host_build)
    timing = benchmark(build, HostRunner(), threads=2, repeat=5)
    assert 0 < timing.min_ms <= timing.median_ms < 1000
    assert (timing.threads, timing.repeat) == (2, 5)
    profiled = profile(build, HostRunner(), threads=1, repeat=2)
    assert len(profiled["steps"]) == build.manifest.kernel_calls
    assert selftest(build, HostRunner(), threads=2)


def test_a_folder_that_is_no_build_is_told_so(tmp_path: Path, copied_build: Path) -> None:
    with pytest.raises(UserError, match="no build folder at .*gone; give a folder written by"):
        open_build(tmp_path / "gone")
    with pytest.raises(UserError, match=r"manifest\.json not found"):
        open_build(tmp_path)
    (copied_build / BOARD_FILE).write_text("{}")
    with pytest.raises(UserError, match=r"board\.json is missing or damaged .*compile the model again"):
        open_build(copied_build)


def test_a_build_whose_program_is_gone_is_told_so(copied_build: Path) -> None:
    open_build(copied_build).program.unlink()
    with pytest.raises(UserError, match="edgenext_xx_small is missing; compile the model again"):
        open_build(copied_build)
