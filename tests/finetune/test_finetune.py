"""From class folders to a checkpoint: what comes out, equal bits after any interruption, and what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from edgenext_tvm.errors import UserError
from edgenext_tvm.finetune.finetune import FinetuneResult, Watcher, finetune, run_training, state_paths
from edgenext_tvm.finetune.qat import QatSettings
from edgenext_tvm.finetune.settings import Phase, TrainingSettings
from edgenext_tvm.finetune.train import Trainer, TrainingDiverged, TrainingInterrupted
from edgenext_tvm.model.checkpoint import checkpoint_metadata, load_model

XXS = "edgenext_xx_small"
SETTINGS = TrainingSettings((Phase(64, 2),), batch_size=16)
ROOT = Path(__file__).resolve().parents[2]


def trained(squares: Path, out: Path, settings: TrainingSettings = SETTINGS, **options) -> FinetuneResult:
    return finetune(XXS, squares, out, settings, device="cpu", **options)


def wait_for(path: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 300
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)


class StopAfter:
    """Asks for an end after so many steps in all, as Ctrl-C would."""

    def __init__(self, steps: int) -> None:
        self.left = steps
        self.watcher = Watcher(progress=self._count, stop=lambda: self.left <= 0)

    def _count(self, _now: object) -> None:
        self.left -= 1


@pytest.fixture(scope="module")
def whole(squares: Path, tmp_path_factory: pytest.TempPathFactory) -> FinetuneResult:
    """Two epochs, never interrupted. Read only."""
    return trained(squares, tmp_path_factory.mktemp("whole") / "squares.safetensors")


def test_separable_classes_are_told_apart_after_two_epochs(whole: FinetuneResult) -> None:
    assert (whole.images, whole.validation_images, whole.epochs) == (59, 7, 2)
    # six steps from whatever weights are bundled; chance is 1/3
    assert whole.top1 is not None and whole.top1 > 0.6
    assert json.dumps(whole.to_dict())


def test_the_checkpoint_is_one_that_compile_takes(whole: FinetuneResult) -> None:
    assert load_model(whole.checkpoint).num_classes == 3
    found = checkpoint_metadata(whole.checkpoint)
    assert (found.model, found.input_size, found.classes) == (XXS, 64, ("blue", "green", "red"))
    assert [file.name for file in whole.checkpoint.parent.iterdir()] == ["squares.safetensors"]


def test_interrupted_and_resumed_gives_the_same_bytes(whole: FinetuneResult, squares: Path, tmp_path: Path) -> None:
    out = tmp_path / "squares.safetensors"
    with pytest.raises(TrainingInterrupted, match=r"interrupted at step 2 of 6"):
        trained(squares, out, watcher=StopAfter(2).watcher)
    assert not out.exists() and state_paths(out)[0].exists()
    with pytest.raises(UserError, match=r"is the state of an unfinished training of squares\.safetensors; go on with"):
        trained(squares, out)
    with pytest.raises(UserError, match=r"belongs to another run \(other learning rate: 0\.002\)"):
        trained(squares, out, TrainingSettings((Phase(64, 2),), batch_size=16, learning_rate=1e-3), resume=True)
    said: list[str] = []
    trained(squares, out, resume=True, watcher=Watcher(say=said.append))
    assert "resuming at step 2 of 6" in said
    assert out.read_bytes() == whole.checkpoint.read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == ["squares.safetensors"]


def test_a_killed_process_is_resumed_to_the_same_bytes(whole: FinetuneResult, squares: Path, tmp_path: Path) -> None:
    out = tmp_path / "squares.safetensors"
    arguments = ["--images", squares, "--out", out, "--phases", "64x2", "--batch-size", "16", "--threads", "1"]
    command = [sys.executable, "-m", "edgenext_tvm.cli", "finetune", XXS, *map(str, arguments), "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, env=environment) as run:
        try:
            wait_for(state_paths(out)[0], run)
        finally:
            run.kill()
    assert run.returncode == -signal.SIGKILL
    assert not out.exists()
    trained(squares, out, resume=True)
    assert out.read_bytes() == whole.checkpoint.read_bytes()


def test_more_classes_go_on_from_fewer(whole: FinetuneResult, write_squares, tmp_path: Path) -> None:
    folder = write_squares(tmp_path / "photos", 20, ("blue", "red"))
    said: list[str] = []
    settings = TrainingSettings((Phase(64, 1),), batch_size=16)
    result = trained(
        folder, tmp_path / "x.safetensors", settings, checkpoint=whole.checkpoint, hold_out=0,
        watcher=Watcher(say=said.append),
    )  # fmt: skip
    assert result.classes == ("blue", "red") and result.top1 is None
    assert "from squares.safetensors with a new classifier; 40 images in batches of 16, on cpu" in said[0]


@pytest.mark.slow
def test_quantization_aware_epochs_alone_refine_trained_weights(
    whole: FinetuneResult, squares: Path, tmp_path: Path
) -> None:
    settings = TrainingSettings((Phase(64, 0),), batch_size=16)
    options = {"checkpoint": whole.checkpoint, "qat": QatSettings(1)}
    result = trained(squares, tmp_path / "x.safetensors", settings, **options)
    assert result.qat is not None and result.qat.kl_after < 2 * result.qat.kl_before + 1e-4
    assert (result.epochs, result.classes) == (0, whole.classes)
    assert result.top1 == pytest.approx(whole.top1, abs=0.15)
    with pytest.raises(TrainingInterrupted):
        trained(squares, tmp_path / "y.safetensors", settings, watcher=StopAfter(1).watcher, **options)
    assert [path.exists() for path in state_paths(tmp_path / "y.safetensors")] == [False, True]
    trained(squares, tmp_path / "y.safetensors", settings, resume=True, **options)
    assert (tmp_path / "y.safetensors").read_bytes() == result.checkpoint.read_bytes()


def test_what_is_refused_before_anything_is_read(whole: FinetuneResult, squares: Path, tmp_path: Path) -> None:
    out, none = tmp_path / "x.safetensors", TrainingSettings((Phase(64, 0),))
    with pytest.raises(UserError, match=r"squares\.safetensors already exists"):
        trained(squares, whole.checkpoint)
    with pytest.raises(UserError, match=r"there is no unfinished training to resume \(.*x\.safetensors\.training"):
        trained(squares, out, resume=True)
    with pytest.raises(UserError, match=r"there are no epochs to train; give --epochs 30, or --qat 3"):
        trained(squares, out, none)
    with pytest.raises(UserError, match=r"of edgenext_small_bn_hs is not possible"):
        finetune("edgenext_small_bn_hs", squares, out, SETTINGS, qat=QatSettings(1))
    with pytest.raises(UserError, match=r"--qat alone refines trained weights, but these are .* with a new classifier"):
        trained(squares, out, none, qat=QatSettings(1))
    with pytest.raises(UserError, match=r"59 training images do not fill one batch of 64; try --batch-size 7"):
        trained(squares, out, TrainingSettings((Phase(64, 1),), batch_size=64))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_from_photos_to_a_program(squares: Path, tmp_path: Path) -> None:
    from edgenext_tvm.api import compile_model, run_build

    result = trained(squares, tmp_path / "x.safetensors", TrainingSettings((Phase(64, 8),), batch_size=16))
    assert result.top1 == 1.0
    build = compile_model(
        XXS, "host", checkpoint=str(result.checkpoint), calibration=str(squares), out=tmp_path / "build", quiet=True
    ).build_dir
    photos = [squares / name / f"{index:03}.png" for name in result.classes for index in range(5)]
    answers = run_build(str(build), [str(photo) for photo in photos], top=1)
    assert [answer["top"][0]["name"] for answer in answers] == [photo.parent.name for photo in photos]


def test_a_training_that_diverged_leaves_no_state(make_network, square_images, tmp_path: Path) -> None:
    trainer = Trainer(make_network(), square_images, TrainingSettings((Phase(64, 1),)))
    trainer.save(tmp_path / "x.training")
    with torch.no_grad():
        trainer.model.head.bias.fill_(float("nan"))
    with pytest.raises(TrainingDiverged):
        run_training(trainer, None, tmp_path / "x.training", False, Watcher())
    assert not list(tmp_path.iterdir())
