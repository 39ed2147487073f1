"""Calibration runs every batch once and keeps stdout clean."""

from __future__ import annotations

import torch
from torch import nn

from edgenext_tvm.quantize.calibrate import calibrate


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
