"""The training loop, on a network of two layers: it learns, it can be stopped at any step, equal bits come out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from edgenext_tvm.errors import UserError
from edgenext_tvm.finetune.settings import Phase, TrainingSettings
from edgenext_tvm.finetune.train import (
    EpochReport,
    Progress,
    Trainer,
    TrainingDiverged,
    TrainingInterrupted,
    uses_bfloat16,
)
from edgenext_tvm.finetune.training_images import TrainingImages
from edgenext_tvm.quantize import open_images

SETTINGS = TrainingSettings((Phase(64, 2), Phase(96, 1)), batch_size=16, learning_rate=3e-2, precision="float32")


@pytest.fixture
def make_trainer(make_network: Callable[[], nn.Module], square_images: TrainingImages) -> Callable[..., Trainer]:
    def make(settings: TrainingSettings = SETTINGS, images: TrainingImages = square_images, **options) -> Trainer:
        return Trainer(make_network(), images, settings, **options)

    return make


@pytest.fixture
def state_file(tmp_path: Path) -> Path:
    return tmp_path / "x.training"


def same(one: Trainer, other: Trainer) -> bool:
    pairs = [(one.model.state_dict(), other.model.state_dict()), (one.average, other.average)]
    return all(torch.equal(a[name], b[name]) for a, b in pairs for name in a)


def test_it_learns_and_reports(make_trainer, square_images: TrainingImages, state_file: Path) -> None:
    trainer = make_trainer(TrainingSettings((Phase(64, 12),), batch_size=16, learning_rate=3e-2))
    reports: list[EpochReport] = []
    steps: list[Progress] = []
    trainer.run(state_file, square_images, steps.append, reports.append)
    assert reports[-1].top1 is not None and reports[-1].top1 > 0.9
    assert [report.epoch for report in reports] == list(range(1, 13))
    assert reports[-1].loss < reports[0].loss
    assert [(now.step, now.steps) for now in steps] == [(step, 48) for step in range(1, 49)]


@pytest.mark.parametrize("stop_at", [1, 4, 6, 12])
def test_stopped_at_any_step_and_resumed_gives_the_same_bits(make_trainer, state_file: Path, stop_at: int) -> None:
    whole = make_trainer()
    whole.run(state_file)
    first = make_trainer()
    with pytest.raises(TrainingInterrupted, match=rf"interrupted at step {stop_at} of 12; .*x\.training holds") as why:
        first.run(state_file, stop=lambda: first.step == stop_at)
    assert (why.value.step, why.value.steps, why.value.state_file) == (stop_at, 12, state_file)
    second = make_trainer()
    second.resume(state_file)
    assert second.step == stop_at
    second.run(state_file)
    assert same(whole, second) and second.step == 12


def test_sizes_follow_the_phases_and_epochs_begin_once(make_trainer, state_file: Path) -> None:
    trainer, begun, sizes = make_trainer(), [], []
    trainer.run(
        state_file,
        progress=lambda now: sizes.append(now.input_size),
        begin_epoch=lambda trainer: begun.append(trainer.step),
    )
    assert sizes == [64] * 8 + [96] * 4
    assert begun == [0, 4, 8]


def test_images_read_from_disk_by_processes_give_the_same_bits(make_trainer, squares: Path, state_file: Path) -> None:
    stored, read = make_trainer(), make_trainer(images=TrainingImages(open_images(squares), 64), workers=2)
    stored.run(state_file)
    read.run(state_file)
    assert same(stored, read)


def test_validation_leaves_the_training_alone(make_trainer, square_images: TrainingImages, state_file: Path) -> None:
    plain, judged = make_trainer(), make_trainer()
    plain.run(state_file)
    judged.run(state_file, square_images)
    assert same(plain, judged)


def test_a_damaged_image_in_a_process_is_named_without_its_traceback(
    make_trainer, write_squares, tmp_path: Path, state_file: Path
) -> None:
    folder = write_squares(tmp_path / "photos", 40)
    (folder / "green" / "007.png").write_bytes(b"damaged")
    trainer = make_trainer(images=TrainingImages(open_images(folder), 64), workers=1)
    with pytest.raises(UserError, match=r"^image .*green/007\.png cannot be decoded .*remove or replace it$"):
        trainer.run(state_file)


def test_the_average_follows_the_weights_and_is_what_is_judged(make_trainer, square_images, state_file: Path) -> None:
    trainer = make_trainer()
    trainer.run(state_file)
    assert not torch.equal(trainer.average["head.weight"], trainer.model.head.weight)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.average["head.weight"].zero_()
    trainer.average["head.bias"].copy_(torch.tensor([0.0, 0.0, 1.0]))
    assert trainer.evaluate(square_images, 64) == pytest.approx(1 / 3)
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())


def test_parameters_without_a_gradient_stay(make_network, square_images: TrainingImages, state_file: Path) -> None:
    model = make_network()
    model.stem.requires_grad_(False)
    weight = model.stem.weight.clone()
    Trainer(model, square_images, SETTINGS).run(state_file)
    assert torch.equal(model.stem.weight, weight)


def test_a_teacher_replaces_the_labels(make_network, square_images: TrainingImages, state_file: Path) -> None:
    teacher = make_network()
    with torch.no_grad():
        teacher.head.bias.copy_(torch.tensor([3.0, 0.0, 0.0]))
    trainer = Trainer(make_network(), square_images, SETTINGS, teacher=teacher)
    before = trainer.divergence_from_teacher()
    trainer.run(state_file)
    assert trainer.divergence_from_teacher() < before / 2
    assert Trainer(teacher, square_images, SETTINGS, teacher=teacher).divergence_from_teacher() == pytest.approx(0)


def test_a_rate_that_diverges(make_network, square_images: TrainingImages, state_file: Path) -> None:
    model = make_network()
    with torch.no_grad():
        model.head.weight.fill_(float("inf"))
    with pytest.raises(TrainingDiverged, match=r"training diverged at step 0 \(loss nan\); try a lower"):
        Trainer(model, square_images, SETTINGS).run(state_file)


def test_states_of_other_weights_and_other_images(make_trainer, write_squares, tmp_path, state_file: Path) -> None:
    trainer = make_trainer()
    trainer.save(state_file)
    other = make_trainer()
    with torch.no_grad():
        trainer.model.head.bias += 1
    with pytest.raises(UserError, match=r"belongs to another run \(other start weights\)"):
        Trainer(trainer.model, other.images, SETTINGS).resume(state_file)
    fewer = TrainingImages(open_images(write_squares(tmp_path / "photos", 21)), 64)
    with pytest.raises(UserError, match=r"another run \(other number of images, labels\)"):
        make_trainer(images=fewer).resume(state_file)


def test_precision() -> None:
    assert uses_bfloat16("bfloat16", "cpu") and uses_bfloat16("auto", "cuda")
    assert not uses_bfloat16("float32", "cuda")
