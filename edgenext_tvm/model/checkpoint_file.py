"""Reads checkpoint files (.safetensors, .pth, .pt) without running anything that is inside them."""

from __future__ import annotations

import argparse
import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from edgenext_tvm.errors import UserError
from edgenext_tvm.model.checkpoint_names import to_timm_names

SUFFIXES = (".safetensors", ".pth", ".pt")
# Where a training checkpoint keeps its weights; the moving average is what the official repository evaluates.
STATE_KEYS = ("model_ema", "state_dict", "model")


@dataclass(frozen=True)
class CheckpointMetadata:
    """States what a .safetensors file says about itself; None (or empty) where it says nothing."""

    model: str | None = None
    num_classes: int | None = None
    input_size: int | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    resize: str | None = None
    classes: tuple[str, ...] = ()


def _check_path(path: Path) -> None:
    if not path.is_file():
        kind = "a folder, not a file" if path.is_dir() else "not there"
        raise UserError(f"checkpoint {path} is {kind}; give a {', '.join(SUFFIXES)} file")
    if path.suffix not in SUFFIXES:
        raise UserError(f"checkpoint {path} ends in {path.suffix!r}; allowed are {', '.join(SUFFIXES)}")


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"checkpoint {path} is truncated or no safetensors file ({error}); copy or download it again"
        ) from error


def _read_pickle(path: Path) -> Any:
    try:
        # Training checkpoints keep their command line; a Namespace runs no code when read.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        if "Unsupported global" in str(error):
            raise UserError(
                f"checkpoint {path} holds Python objects besides tensors, which are not read because reading "
                "them could run code; save the weights alone: torch.save({'model': model.state_dict()}, path)"
            ) from error
        first_line = str(error).strip().split("\n")[0][:120]
        raise UserError(
            f"checkpoint {path} is truncated or was not written by torch.save ({first_line}); copy or download it again"
        ) from error


def _find_state(path: Path, content: Any) -> Mapping[str, Tensor]:
    candidates = [content]
    if isinstance(content, Mapping):
        candidates = [content[key] for key in STATE_KEYS if isinstance(content.get(key), Mapping)] + [content]
    for state in candidates:
        if isinstance(state, Mapping) and state and all(isinstance(v, Tensor) for v in state.values()):
            return state
    found = ", ".join(map(str, list(content)[:6])) if isinstance(content, Mapping) else type(content).__name__
    raise UserError(
        f"checkpoint {path} holds no weights: found {found or 'nothing'}; expected a state_dict, "
        f"alone or under one of {', '.join(STATE_KEYS)}"
    )


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Reads the weights of a checkpoint under timm's names; floating point becomes float32 on the CPU.

    UserError where the file is missing, truncated, no checkpoint, or holds non-finite weights.
    """
    path = Path(path)
    _check_path(path)
    if path.suffix == ".safetensors":
        state: Mapping[str, Tensor] = _read_safetensors(path)[0]
    else:
        state = _find_state(path, _read_pickle(path))
    named = to_timm_names(state)
    result = {name: v.float() if v.is_floating_point() else v for name, v in named.items()}
    for name, value in result.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise UserError(f"checkpoint {path} holds infinite or NaN weights in {name}; use an earlier one")
    return result


def _triple(value: Any) -> tuple[float, float, float]:
    red, green, blue = (float(v) for v in value)
    return red, green, blue


def checkpoint_metadata(path: str | Path) -> CheckpointMetadata:
    """Reads what a .safetensors checkpoint says about itself; .pth and .pt files say nothing."""
    path = Path(path)
    _check_path(path)
    if path.suffix != ".safetensors":
        return CheckpointMetadata()
    raw = _read_safetensors(path)[1]
    parsers: dict[str, Any] = {
        "model": str,
        "num_classes": int,
        "input_size": int,
        "mean": lambda text: _triple(json.loads(text)),
        "std": lambda text: _triple(json.loads(text)),
        "resize": str,
        "classes": lambda text: tuple(str(name) for name in json.loads(text)),
    }
    values: dict[str, Any] = {}
    for key, parse in parsers.items():
        if key in raw:
            try:
                values[key] = parse(raw[key])
            except (ValueError, TypeError) as error:
                raise UserError(
                    f"checkpoint {path} has metadata {key}={raw[key]!r}, which cannot be read ({error}); "
                    "numbers and lists are expected as JSON"
                ) from error
    return CheckpointMetadata(**values)
