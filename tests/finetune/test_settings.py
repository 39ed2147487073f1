"""Training settings: phases as text, ranges of every number, batch sizes that the images fill."""

from __future__ import annotations

import pytest

from edgenext_tvm.errors import UserError
from edgenext_tvm.finetune.settings import Phase, TrainingSettings, parse_phases

PHASES = (Phase(64, 2),)


def test_phases_run_in_order_and_the_last_one_gives_the_size() -> None:
    phases = parse_phases("64x24, 96x6,128x4")
    assert phases == (Phase(64, 24), Phase(96, 6), Phase(128, 4))
    settings = TrainingSettings(phases)
    assert (settings.input_size, settings.epochs) == (128, 34)


@pytest.mark.parametrize("text", ["", "64", "64x", "x4", "64x0", "64x2,", "64*2", "-64x2", "64x²"])
def test_a_phase_that_is_none(text: str) -> None:
    with pytest.raises(UserError, match=r"training phase '.*' is not SIDExEPOCHS; give for example 64x24,128x4"):
        parse_phases(text)


def test_a_phase_of_a_size_that_cannot_be() -> None:
    with pytest.raises(UserError, match=r"input size 100 is not possible"):
        parse_phases("64x1,100x1")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("batch_size", 1, r"batch size is 1; allowed: 2 to 65536"),
        ("learning_rate", 0.0, r"learning rate is 0\.0; allowed: 1e-08 to 1\.0"),
        ("learning_rate", float("nan"), r"learning rate is nan"),
        ("weight_decay", -0.1, r"weight decay is -0\.1"),
        ("label_smoothing", 1.0, r"label smoothing is 1\.0"),
        ("warmup_share", 1.0, r"warmup share is 1\.0"),
        ("min_crop", 0.0, r"min crop is 0\.0; allowed: 0\.01 to 1\.0"),
        ("ema_decay", 1.0, r"ema decay is 1\.0"),
        ("optimizer", "sgd", r"optimizer 'sgd' is unknown; allowed: muon, adamw"),
        ("precision", "half", r"precision 'half' is unknown; allowed: auto, float32, bfloat16"),
        ("phases", (), r"no training phase is given; try --phases"),
    ],
)
def test_a_value_out_of_range_is_named(field: str, value: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        TrainingSettings(**{"phases": PHASES, field: value})


@pytest.mark.parametrize(("images", "batch_size"), [(4, 2), (65, 8), (1023, 127), (1024, 128), (50000, 128)])
def test_batches_become_smaller_for_few_images(images: int, batch_size: int) -> None:
    assert TrainingSettings(PHASES).for_images(images).batch_size == batch_size


def test_a_batch_size_that_was_asked_for_is_kept_or_refused() -> None:
    settings = TrainingSettings(PHASES, batch_size=64)
    assert settings.for_images(64) is settings
    with pytest.raises(UserError, match=r"63 training images do not fill one batch of 64; try --batch-size 7"):
        settings.for_images(63)
