"""Calibration runs every batch once and keeps stdout clean."""

from __future__ import annotations

import torch
from torch import nn

from edgenext_tvm.quantize import open_images
from edgenext_tvm.quantize.calibrate import calibrate, image_batches, split_images


class Recorder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[float] = []

    def forward(self, x):
        assert not torch.is_grad_enabled()
        self.seen.append(float(x))
        return x


def test_every_batch_runs_once_in_order() -> None:
    recorder = Recorder()
    assert calibrate(recorder, (torch.tensor(float(k)) for k in range(4)), total=4, quiet=True) == 4
    assert recorder.seen == [0.0, 1.0, 2.0, 3.0]


def test_stdout_stays_clean_and_quiet_is_silent(capfd) -> None:
    calibrate(Recorder(), [torch.tensor(1.0)], total=1)
    assert capfd.readouterr().out == ""
    calibrate(Recorder(), [torch.tensor(1.0)], total=1, quiet=True)
    assert capfd.readouterr() == ("", "")


def test_every_fourth_image_is_held_out() -> None:
    seen, held_out = split_images(open_images("synthetic:12"))
    assert (len(seen), len(held_out)) == (9, 3)
    assert held_out.sha256() == open_images("synthetic:12").pick([3, 7, 11]).sha256()
    assert len(split_images(open_images("synthetic:300"))[1]) <= 32


def test_too_few_images_serve_both_purposes() -> None:
    seen, held_out = split_images(open_images("synthetic:3"))
    assert (len(seen), len(held_out)) == (3, 3)


def test_a_limit_takes_images_evenly(small_preprocessing) -> None:
    batches = list(image_batches(open_images("synthetic:6"), small_preprocessing))
    few = list(image_batches(open_images("synthetic:6"), small_preprocessing, limit=4))
    assert len(few) == 3
    assert all(torch.equal(a, b) for a, b in zip(few, batches[::2], strict=True))
