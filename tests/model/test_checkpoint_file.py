"""Checkpoint files are read whole or refused with one clear message; nothing inside them runs."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from edgenext_tvm.errors import UserError
from edgenext_tvm.model.checkpoint import bundled_checkpoint
from edgenext_tvm.model.checkpoint_file import CheckpointMetadata, checkpoint_metadata, read_state_dict

STATE = {"head.weight": torch.ones(2, 3), "norm.bias": torch.zeros(3, dtype=torch.float16)}


@pytest.mark.parametrize("key", ["model", "state_dict", "model_ema", None])
def test_state_is_found_alone_or_in_a_training_checkpoint(tmp_path: Path, key: str | None) -> None:
    path = tmp_path / "checkpoint.pth"
    content = STATE if key is None else {key: STATE, "epoch": 3, "args": argparse.Namespace(lr=0.006)}
    torch.save(content, path)
    state = read_state_dict(path)
    assert set(state) == {"head.fc.weight", "head.norm.bias"}
    assert all(value.dtype == torch.float32 for value in state.values())


def test_the_moving_average_is_preferred_as_in_the_official_evaluation(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    torch.save({"model": {"head.bias": torch.zeros(2)}, "model_ema": {"head.bias": torch.ones(2)}}, path)
    assert read_state_dict(path)["head.fc.bias"].tolist() == [1.0, 1.0]


def test_metadata_of_the_bundled_checkpoint() -> None:
    metadata = checkpoint_metadata(bundled_checkpoint("edgenext_xx_small"))
    assert (metadata.model, metadata.num_classes, metadata.input_size) == ("edgenext_xx_small", 10, 128)
    assert metadata.mean == (0.485, 0.456, 0.406)
    assert metadata.std == (0.229, 0.224, 0.225)
    assert metadata.resize == "bilinear"
    assert metadata.classes[0] == "airplane" and len(metadata.classes) == 10


def test_files_without_metadata_say_nothing(tmp_path: Path) -> None:
    save_file({"head.weight": torch.ones(2, 3)}, tmp_path / "a.safetensors")
    torch.save(STATE, tmp_path / "b.pth")
    assert checkpoint_metadata(tmp_path / "a.safetensors") == CheckpointMetadata()
    assert checkpoint_metadata(tmp_path / "b.pth") == CheckpointMetadata()


@pytest.mark.parametrize(
    ("key", "value"), [("num_classes", "ten"), ("mean", "[0.5, 0.5]"), ("std", "0.2"), ("classes", "{")]
)
def test_unreadable_metadata_names_the_entry(tmp_path: Path, key: str, value: str) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"head.weight": torch.ones(2, 3)}, path, metadata={key: value})
    with pytest.raises(UserError, match=rf"metadata {key}=.*cannot be read"):
        checkpoint_metadata(path)


def test_missing_files_folders_and_other_suffixes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing\.pth is not there; give a \.safetensors, \.pth, \.pt file"):
        read_state_dict(tmp_path / "nothing.pth")
    with pytest.raises(UserError, match="is a folder, not a file"):
        read_state_dict(tmp_path)
    other = tmp_path / "model.onnx"
    other.write_bytes(b"x")
    with pytest.raises(UserError, match=r"ends in '\.onnx'; allowed are \.safetensors, \.pth, \.pt"):
        read_state_dict(other)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"hello, this is text", bytes(range(256)) * 8])
def test_files_that_are_no_checkpoint(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"(truncated|holds no weights).*"):
        read_state_dict(path)


@pytest.mark.parametrize("keep", [0.02, 0.5, 0.99])
def test_truncated_files(tmp_path: Path, keep: float) -> None:
    source = bundled_checkpoint("edgenext_xx_small").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(source[: int(len(source) * keep)])
    torch.save({"model": {"head.weight": torch.ones(300, 300)}}, tmp_path / "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: int(len(whole) * keep)])
    for name in ("cut.safetensors", "cut.pth"):
        with pytest.raises(UserError, match=rf"{name} is truncated .* copy or download it again"):
            read_state_dict(tmp_path / name)


class _Payload:
    def __reduce__(self) -> tuple:
        return (open, ("/dev/null",))


def test_files_that_would_run_code_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    torch.save({"model": STATE, "extra": _Payload()}, path)
    with pytest.raises(UserError, match="could run code; save the weights alone"):
        read_state_dict(path)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {"model": {"a": 1}}, {}])
def test_content_without_weights(tmp_path: Path, content: object) -> None:
    path = tmp_path / "a.pth"
    torch.save(content, path)
    with pytest.raises(UserError, match=r"holds no weights: found .*expected a state_dict"):
        read_state_dict(path)


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"head.bias": torch.tensor([1.0, float("nan")])}, path)
    with pytest.raises(UserError, match=r"infinite or NaN weights in head\.fc\.bias"):
        read_state_dict(path)
