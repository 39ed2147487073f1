"""A checkpoint loads completely or not at all; what does not fit is named, with the likely variant."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from edgenext_tvm.errors import UserError
from edgenext_tvm.model.checkpoint import (
    BUNDLED,
    bundled_checkpoint,
    identify_variant,
    load_checkpoint,
    load_model,
    read_state_dict,
)
from edgenext_tvm.model.checkpoint_names import to_official_names
from edgenext_tvm.model.config import VARIANTS
from edgenext_tvm.model.edgenext import EdgeNeXt, build_model
from edgenext_tvm.model.init_random import init_random


def _random(name: str, num_classes: int = 7) -> EdgeNeXt:
    return init_random(build_model(name, num_classes, 64), seed=2)


def _same_weights(a: EdgeNeXt, b: EdgeNeXt) -> bool:
    other = b.state_dict()
    return all(torch.equal(value, other[name]) for name, value in a.state_dict().items())


@pytest.mark.parametrize("name", ["edgenext_xx_small", "edgenext_x_small_bn_hs"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("names", ["timm", "official"])
def test_round_trip_through_both_schemes_and_formats(tmp_path: Path, name: str, suffix: str, names: str) -> None:
    source = _random(name)
    state = source.state_dict() if names == "timm" else to_official_names(source.state_dict())
    path = tmp_path / f"a{suffix}"
    if suffix == ".pth":
        torch.save({"model": state}, path)
    else:
        save_file(state, path)
    assert _same_weights(load_checkpoint(build_model(name, 7, 64), path), source)
    loaded = load_model(path, input_size=64)
    assert _same_weights(loaded, source)
    assert (loaded.config.name, loaded.num_classes, loaded.training) == (name, 7, False)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_recognised_whatever_its_classifier(name: str) -> None:
    assert identify_variant(build_model(name, num_classes=3).state_dict()) == name


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_checkpoint_loads_with_its_own_size_and_classes(name: str) -> None:
    path = bundled_checkpoint(name)
    assert path is not None
    model = load_model(path)
    assert (model.config.name, model.num_classes, model.input_size) == (name, 10, 128)
    assert bundled_checkpoint("edgenext_base") is None


def test_batch_counters_may_be_absent(tmp_path: Path) -> None:
    source = _random("edgenext_xx_small_bn_hs")
    state = {k: v for k, v in source.state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "a.pth")
    assert _same_weights(load_model(tmp_path / "a.pth", input_size=64), source)


@pytest.mark.parametrize("given", ["edgenext_x_small", "edgenext_xx_small_bn_hs"])
def test_wrong_variant_is_named(tmp_path: Path, given: str) -> None:
    torch.save({"model": to_official_names(_random(given).state_dict())}, tmp_path / "a.pth")
    model = build_model("edgenext_xx_small", 7, 64, seed=1)
    with pytest.raises(
        UserError, match=f"holds the weights of {given}, but the model is edgenext_xx_small; build {given}"
    ):
        load_checkpoint(model, tmp_path / "a.pth")
    assert _same_weights(model, build_model("edgenext_xx_small", 7, 64, seed=1))
    with pytest.raises(UserError, match=f"holds the weights of {given}"):
        load_model(tmp_path / "a.pth", name="edgenext_xx_small")


def test_wrong_number_of_classes_says_which_to_build() -> None:
    with pytest.raises(UserError, match=r"holds edgenext_xx_small for 10 classes.*built for 1000; .*num_classes=10"):
        load_checkpoint(build_model("edgenext_xx_small"), bundled_checkpoint("edgenext_xx_small"))


def _damaged(tmp_path: Path, change) -> Path:
    state = read_state_dict(bundled_checkpoint("edgenext_xx_small"))
    change(state)
    path = tmp_path / "damaged.safetensors"
    save_file(state, path)
    return path


def test_missing_extra_and_misshapen_entries_are_named(tmp_path: Path) -> None:
    def change(state: dict[str, torch.Tensor]) -> None:
        del state["stages.1.blocks.1.gamma"]
        state["stages.9.weight"] = torch.ones(2)
        state["stages.0.blocks.0.mlp.fc1.weight"] = torch.ones(96, 24, 1, 1)

    with pytest.raises(UserError) as caught:
        load_checkpoint(build_model("edgenext_xx_small", 10), _damaged(tmp_path, change))
    message = str(caught.value)
    assert "missing: stages.1.blocks.1.gamma" in message
    assert "unknown: stages.9.weight" in message
    assert "stages.0.blocks.0.mlp.fc1.weight is [96, 24, 1, 1] instead of [96, 24]" in message
    assert "looks most like edgenext_xx_small" in message


def test_a_checkpoint_of_another_network(tmp_path: Path) -> None:
    torch.save({"layer1.0.conv1.weight": torch.ones(4, 4, 3, 3)}, tmp_path / "resnet.pth")
    with pytest.raises(UserError, match=r"holds no EdgeNeXt \(its first entries are layer1\.0\.conv1"):
        load_checkpoint(build_model("edgenext_xx_small"), tmp_path / "resnet.pth")
    with pytest.raises(UserError, match=r"holds none of edgenext_xx_small, .*edgenext_small_bn_hs"):
        load_model(tmp_path / "resnet.pth")


def test_loading_after_folding_is_refused() -> None:
    model = build_model("edgenext_xx_small", 10, 128).fold_position_encoding()
    with pytest.raises(UserError, match="already folded; build the model, load the checkpoint, then fold"):
        load_checkpoint(model, bundled_checkpoint("edgenext_xx_small"))
