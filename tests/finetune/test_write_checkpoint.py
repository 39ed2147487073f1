"""Checkpoints as written: readable by everything that reads checkpoints, the same bytes for the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgenext_tvm.errors import UserError
from edgenext_tvm.finetune.write_checkpoint import as_stored, check_out, write_checkpoint
from edgenext_tvm.model.checkpoint import checkpoint_metadata, load_model
from edgenext_tvm.model.edgenext import build_model

XXS = "edgenext_xx_small"


def test_a_written_checkpoint_loads_and_says_what_it_is(tmp_path: Path) -> None:
    model = build_model(XXS, 2, 96, seed=0).to(memory_format=torch.channels_last)
    path = tmp_path / "x.safetensors"
    stored = as_stored(model.state_dict())
    write_checkpoint(path, stored, XXS, ("cat", "dog"), 96, "pets: 9 images, 1 epochs")
    loaded = load_model(path)
    assert (loaded.config.name, loaded.num_classes, loaded.input_size) == (XXS, 2, 96)
    assert all(torch.equal(value, stored[name].float()) for name, value in loaded.state_dict().items())
    found = checkpoint_metadata(path)
    assert (found.model, found.num_classes, found.input_size, found.classes) == (XXS, 2, 96, ("cat", "dog"))
    assert (found.mean, found.resize) == ((0.485, 0.456, 0.406), "bilinear")
    assert [file.name for file in tmp_path.iterdir()] == ["x.safetensors"]


def test_metadata_stand_in_one_order(tmp_path: Path) -> None:
    weights = as_stored({"b": torch.ones(3), "a": torch.zeros(2, 2)})
    for name in ("x", "y"):
        write_checkpoint(tmp_path / f"{name}.safetensors", weights, XXS, ("cat",), 64, "")
    content = (tmp_path / "x.safetensors").read_bytes()
    assert content == (tmp_path / "y.safetensors").read_bytes()
    assert content.index(b'"classes"') < content.index(b'"mean"') < content.index(b'"trained_on"')
    assert (8 + int.from_bytes(content[:8], "little")) % 8 == 0


def test_half_precision_where_it_loses_digits_only() -> None:
    stored = as_stored(
        {
            "plain": torch.tensor([1e-3, -2.0]),
            "tiny": torch.tensor([1e-6, 0.0]),
            "huge": torch.tensor([1e6]),
            "zero": torch.zeros(2),
            "counter": torch.tensor(7),
        }
    )
    kinds = {name: value.dtype for name, value in stored.items()}
    assert kinds == {
        "plain": torch.float16,
        "tiny": torch.float32,
        "huge": torch.float32,
        "zero": torch.float16,
        "counter": torch.int64,
    }


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"output x\.pth must end in \.safetensors; try x\.safetensors"):
        check_out("x.pth")
    with pytest.raises(UserError, match=r"cannot write .*folder .*absent does not exist; create it first"):
        check_out(tmp_path / "absent" / "x.safetensors")
    (tmp_path / "x.safetensors").touch()
    with pytest.raises(UserError, match=r"x\.safetensors already exists; give another --out, or delete it"):
        check_out(tmp_path / "x.safetensors")


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").mkdir()
    with pytest.raises(UserError, match=r"cannot write .*x\.safetensors .*give --out in a writable folder with space"):
        write_checkpoint(tmp_path / "x.safetensors", as_stored({"a": torch.ones(1)}), XXS, ("cat",), 64, "")
    assert [file.name for file in tmp_path.iterdir()] == ["x.safetensors"]
