"""The file that an interrupted training goes on from: written whole or not at all, refused where it does not belong."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from edgenext_tvm.errors import UserError


def save_state(path: Path, identity: dict[str, Any], values: dict[str, Any]) -> None:
    """Writes `values`, atomically: a process killed at any moment leaves the previous file, or this one whole."""
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            torch.save({**values, "identity": identity}, file)
            file.flush()
            # without this a power cut could leave the new name on a file of zeros
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"cannot write the training state {path} ({error}); give --out in a writable folder with space"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def read_state(path: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """What `save_state` wrote. UserError where the file is damaged, or of a run with another identity."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch raises errors of many kinds for a damaged file
        reason = next(iter(str(error).splitlines()), type(error).__name__)[:100]
        raise UserError(f"cannot read the training state {path} ({reason}); delete it and train anew") from error
    found = state.get("identity") if isinstance(state, dict) else None
    if not isinstance(found, dict):
        raise UserError(f"{path} is no training state; delete it and train anew")
    differing = [key for key in identity if found.get(key) != identity[key]]
    if differing:
        raise UserError(
            f"the training state {path} belongs to another run (other {_listed(differing, found, identity)}); resume "
            "with the same options and images, or delete it and train anew"
        )
    return state


def _listed(differing: list[str], found: dict[str, Any], wanted: dict[str, Any]) -> str:
    names = [key for key in differing if key != "settings"]
    if "settings" in differing and isinstance(found.get("settings"), dict):
        old, new = found["settings"], wanted["settings"]
        names += [f"{key.replace('_', ' ')}: {old.get(key)}" for key in new if old.get(key) != new[key]]
    return ", ".join(names)


def digest_weights(model: nn.Module) -> str:
    """SHA-256 of the names and values of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def digest_labels(labels: np.ndarray) -> str:
    """SHA-256 of the class numbers: other images hardly ever have the same ones in the same order."""
    return hashlib.sha256(labels.tobytes()).hexdigest()
