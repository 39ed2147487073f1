"""The model that training starts from: a checkpoint's weights, or random ones that train in tens of epochs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from edgenext_tvm.errors import UserError
from edgenext_tvm.model.checkpoint import bundled_checkpoint, checkpoint_metadata, load_model
from edgenext_tvm.model.config import get_config
from edgenext_tvm.model.edgenext import EdgeNeXt, build_model

RANDOM = "random"
DEFAULT_INPUT_SIZE = 256
# LayerScale starts at 1e-6 for hundreds of epochs; in tens of them the branches would hardly wake up.
LAYER_SCALE_FROM_SCRATCH = 0.1


def find_checkpoint(variant: str, checkpoint: str | Path | None) -> Path | None:
    """The file to start from, None for random weights. checkpoint: a file, "random", or None for the bundled one."""
    get_config(variant)
    if checkpoint is None:
        return bundled_checkpoint(variant)
    return None if str(checkpoint) == RANDOM else Path(checkpoint)


def default_input_size(variant: str, checkpoint: str | Path | None) -> int:
    """Pixels a side that the start weights are for, else 256."""
    path = find_checkpoint(variant, checkpoint)
    found = None if path is None else checkpoint_metadata(path).input_size
    return found or DEFAULT_INPUT_SIZE


@dataclass(frozen=True)
class StartModel:
    """model: in training mode. origin: where its weights are from. complete: none of them are random."""

    model: EdgeNeXt
    origin: str
    complete: bool


def start_model(
    variant: str, checkpoint: str | Path | None, names: tuple[str, ...], input_size: int, seed: int
) -> StartModel:
    """The model with the weights that `find_checkpoint` names. The classifier starts anew for other classes than
    `names`; a file that names no classes has the same ones where their number is the same.
    """
    model = build_model(variant, len(names), input_size, seed=seed)
    path = find_checkpoint(variant, checkpoint)
    if path is None:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.rsplit(".", 1)[-1] in ("gamma", "gamma_xca"):
                    parameter.fill_(LAYER_SCALE_FROM_SCRATCH)
        return StartModel(model, "random weights", False)
    found = load_model(path, variant, input_size=input_size).state_dict()
    known = checkpoint_metadata(path).classes
    anew = found["head.fc.weight"].shape[0] != len(names) or (len(known) > 0 and known != names)
    if anew:
        found |= {name: value for name, value in model.state_dict().items() if name.startswith("head.fc.")}
    model.load_state_dict(found)
    return StartModel(model, f"{path.name}{' with a new classifier' if anew else ''}", not anew)


def choose_device(device: str | None) -> str:
    """ "cpu" or "cuda"; None takes the GPU where there is one. UserError where it is asked for and absent."""
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device not in ("cpu", "cuda"):
        raise UserError(f"device {device!r} is unknown; allowed: cpu, cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device cuda was asked for, but PyTorch finds no CUDA GPU here; try --device cpu")
    return device
