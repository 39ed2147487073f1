"""Start weights: the bundled ones, a file's, or random; and when the classifier starts anew."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgenext_tvm.errors import UserError
from edgenext_tvm.finetune.start_model import choose_device, default_input_size, find_checkpoint, start_model
from edgenext_tvm.finetune.write_checkpoint import as_stored, write_checkpoint
from edgenext_tvm.model.checkpoint import bundled_checkpoint, checkpoint_metadata, load_model

XXS = "edgenext_xx_small"
BUNDLED = bundled_checkpoint(XXS)
TEN = tuple("abcdefghij")


def test_bundled_weights_where_there_are_any() -> None:
    assert find_checkpoint(XXS, None) == BUNDLED
    assert find_checkpoint("edgenext_small", None) is None
    assert find_checkpoint(XXS, "random") is None
    assert default_input_size(XXS, None) == 128
    assert default_input_size("edgenext_small", None) == default_input_size(XXS, "random") == 256
    with pytest.raises(UserError, match=r"unknown model 'resnet'"):
        find_checkpoint("resnet", None)


def test_the_same_classes_keep_their_classifier() -> None:
    start = start_model(XXS, None, checkpoint_metadata(BUNDLED).classes, 64, 0)
    assert start.complete and start.origin == BUNDLED.name
    wanted = load_model(BUNDLED).state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in start.model.state_dict().items())


@pytest.mark.parametrize("names", [("cat", "dog"), TEN])
def test_other_classes_get_a_new_classifier_and_the_rest_of_the_weights(names: tuple[str, ...]) -> None:
    start = start_model(XXS, None, names, 64, 0)
    assert not start.complete and start.origin.endswith("with a new classifier")
    assert start.model.head.fc.weight.shape == (len(names), 168)
    assert torch.equal(start.model.stem[0].weight, load_model(BUNDLED).stem[0].weight)
    if names == TEN:
        assert not torch.equal(start.model.head.fc.weight, load_model(BUNDLED).head.fc.weight)


def test_random_weights_depend_on_the_seed_and_can_wake_up() -> None:
    one, again, other = (start_model(XXS, "random", TEN, 64, seed).model for seed in (0, 0, 1))
    assert torch.equal(one.head.fc.weight, again.head.fc.weight)
    assert not torch.equal(one.head.fc.weight, other.head.fc.weight)
    assert one.stages[0].blocks[0].gamma.unique().tolist() == pytest.approx([0.1])


def test_a_file_of_another_variant(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_checkpoint(path, as_stored(load_model(BUNDLED).state_dict()), XXS, TEN, 64, "")
    with pytest.raises(UserError, match=r"holds the weights of edgenext_xx_small, but the model is edgenext_small"):
        start_model("edgenext_small", path, TEN, 64, 0)
    with pytest.raises(UserError, match=r"absent\.pth is not there"):
        start_model(XXS, tmp_path / "absent.pth", TEN, 64, 0)


def test_devices() -> None:
    assert choose_device(None) in ("cpu", "cuda") and choose_device("cpu") == "cpu"
    with pytest.raises(UserError, match=r"device 'tpu' is unknown; allowed: cpu, cuda"):
        choose_device("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match=r"device cuda was asked for, but PyTorch finds no CUDA GPU here"):
            choose_device("cuda")
