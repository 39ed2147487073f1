"""The state file: whole or absent, and refused where it belongs to another run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edgenext_tvm.errors import UserError
from edgenext_tvm.finetune.training_state import digest_labels, digest_weights, read_state, save_state

IDENTITY = {"settings": {"learning_rate": 0.1, "seed": 0}, "labels": "abc"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.training"


def test_what_was_saved_is_read(path: Path) -> None:
    save_state(path, IDENTITY, {"step": 3, "model": {"w": torch.ones(2)}})
    state = read_state(path, IDENTITY)
    assert state["step"] == 3 and state["model"]["w"].tolist() == [1, 1]
    assert [file.name for file in path.parent.iterdir()] == ["x.training"]


def test_a_failed_save_leaves_the_old_state_and_no_other_file(path: Path) -> None:
    save_state(path, IDENTITY, {"step": 1})

    class Unwritable:
        def __reduce__(self) -> tuple:
            raise RuntimeError("disk full")

    with pytest.raises(UserError, match=r"cannot write the training state .*x\.training \(disk full\); give --out"):
        save_state(path, IDENTITY, {"step": 2, "bad": Unwritable()})
    assert read_state(path, IDENTITY)["step"] == 1
    assert [file.name for file in path.parent.iterdir()] == ["x.training"]


def test_half_a_file_of_a_killed_process_is_written_over(path: Path) -> None:
    path.with_name("x.training.partial").write_bytes(b"half")
    save_state(path, IDENTITY, {"step": 1})
    assert [file.name for file in path.parent.iterdir()] == ["x.training"]


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot write the training state .*absent"):
        save_state(tmp_path / "absent" / "x.training", IDENTITY, {})


def test_a_state_of_another_run_names_what_differs(path: Path) -> None:
    save_state(path, IDENTITY, {"step": 1})
    wanted = {"settings": {"learning_rate": 0.2, "seed": 0}, "labels": "other"}
    with pytest.raises(UserError, match=r"belongs to another run \(other labels, learning rate: 0\.1\); resume with"):
        read_state(path, wanted)


@pytest.mark.parametrize("content", [b"", b"no state", b"PK\x03\x04"])
def test_a_damaged_state(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read the training state .*delete it and train anew"):
        read_state(path, IDENTITY)


def test_another_file_of_torch(path: Path) -> None:
    torch.save([1, 2], path)
    with pytest.raises(UserError, match=r"x\.training is no training state"):
        read_state(path, IDENTITY)


def test_digests_see_values(make_network) -> None:
    one, other = make_network(), make_network()
    assert digest_weights(one) == digest_weights(other.to(memory_format=torch.channels_last))
    with torch.no_grad():
        other.head.bias[0] += 1
    assert digest_weights(one) != digest_weights(other)
    assert digest_labels(np.array([0, 1])) != digest_labels(np.array([1, 0]))
