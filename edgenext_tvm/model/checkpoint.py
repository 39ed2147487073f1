"""Loads official and timm checkpoints strictly, and says which variant a file holds where it does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from edgenext_tvm.errors import UserError
from edgenext_tvm.model.checkpoint_file import CheckpointMetadata, checkpoint_metadata, read_state_dict
from edgenext_tvm.model.config import VARIANTS
from edgenext_tvm.model.edgenext import EdgeNeXt, build_model
from edgenext_tvm.model.layers import ConstantPositionEncoding

__all__ = [
    "CheckpointMetadata",
    "bundled_checkpoint",
    "checkpoint_metadata",
    "identify_variant",
    "load_checkpoint",
    "load_model",
    "read_state_dict",
]

PRETRAINED = Path(__file__).resolve().parent / "pretrained"
BUNDLED = {
    "edgenext_xx_small": "edgenext_xx_small_cifar10.safetensors",
    "edgenext_x_small": "edgenext_x_small_cifar10.safetensors",
}
CLASSIFIER = ("head.fc.weight", "head.fc.bias")
# A training counter that inference never reads; some writers leave it out.
COUNTER = ".num_batches_tracked"
MAX_LISTED = 3

Shapes = dict[str, tuple[int, ...]]


def _shapes(state: Mapping[str, Tensor]) -> Shapes:
    return {name: tuple(value.shape) for name, value in state.items() if not name.endswith(COUNTER)}


@cache
def _variant_shapes(name: str) -> Shapes:
    with torch.device("meta"):
        return _shapes(EdgeNeXt(VARIANTS[name], num_classes=1).state_dict())


def _body(shapes: Shapes) -> set[tuple[str, tuple[int, ...]]]:
    return {item for item in shapes.items() if item[0] not in CLASSIFIER}


def identify_variant(state: Mapping[str, Tensor]) -> str | None:
    """Names the variant whose parameters `state` (timm's names) holds, whatever its classifier; else None."""
    body = _body(_shapes(state))
    return next((name for name in VARIANTS if _body(_variant_shapes(name)) == body), None)


def _closest_variant(state: Mapping[str, Tensor]) -> str | None:
    body = _body(_shapes(state))
    shared = {name: len(body & _body(_variant_shapes(name))) for name in VARIANTS}
    best = max(shared, key=lambda name: shared[name])
    return best if shared[best] * 2 > len(_body(_variant_shapes(best))) else None


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(names[:MAX_LISTED]) + more


def _describe_difference(expected: Shapes, given: Shapes) -> str:
    missing = [name for name in expected if name not in given]
    extra = [name for name in given if name not in expected]
    wrong = [
        f"{name} is {list(given[name])} instead of {list(expected[name])}"
        for name in expected
        if name in given and given[name] != expected[name]
    ]
    parts = [
        f"{label} {_listed(names)}"
        for label, names in (("missing:", missing), ("unknown:", extra), ("wrong shape:", wrong))
        if names
    ]
    return "; ".join(parts)


def _explain_misfit(model: EdgeNeXt, path: Path, state: Mapping[str, Tensor]) -> str:
    expected, given, wanted = _shapes(model.state_dict()), _shapes(state), model.config.name
    variant = identify_variant(state)
    difference = _describe_difference(expected, given)
    if variant is not None and variant != wanted:
        return (
            f"checkpoint {path} holds the weights of {variant}, but the model is {wanted}; "
            f"build {variant}, or give a checkpoint of {wanted}"
        )
    weight = state.get(CLASSIFIER[0])
    if variant == wanted and weight is not None and weight.ndim == 2 and weight.shape[0] != model.num_classes:
        return (
            f"checkpoint {path} holds {wanted} for {weight.shape[0]} classes, but the model was built for "
            f"{model.num_classes}; build it with num_classes={weight.shape[0]}"
        )
    closest = _closest_variant(state)
    if closest is None and not _body(expected) & _body(given):
        return (
            f"checkpoint {path} holds no EdgeNeXt (its first entries are {_listed(list(state))}); "
            f"expected official or timm weights of {wanted}"
        )
    hint = f"it looks most like {closest}" if closest else "it looks like none of the variants"
    return f"checkpoint {path} does not fit {wanted}: {difference}; {hint}; give a complete, unchanged file"


def _apply_state(model: EdgeNeXt, path: Path, state: dict[str, Tensor]) -> EdgeNeXt:
    if any(isinstance(module, ConstantPositionEncoding) for module in model.modules()):
        raise UserError(
            f"checkpoint {path} cannot be loaded into a model whose position encoding is already folded; "
            "build the model, load the checkpoint, then fold"
        )
    own = model.state_dict()
    if _shapes(own) != _shapes(state):
        raise UserError(_explain_misfit(model, path, state))
    counters = {name: state.get(name, value) for name, value in own.items() if name.endswith(COUNTER)}
    model.load_state_dict({**state, **counters}, strict=True)
    return model


def load_checkpoint(model: EdgeNeXt, path: str | Path) -> EdgeNeXt:
    """Fills `model` in place with the file's weights and returns it, or raises UserError and changes nothing.

    The file: .safetensors, .pth or .pt with official or timm names, a state_dict alone or in a training
    checkpoint.
    """
    return _apply_state(model, Path(path), read_state_dict(path))


def load_model(
    path: str | Path,
    name: str | None = None,
    num_classes: int | None = None,
    input_size: int | None = None,
) -> EdgeNeXt:
    """Builds the model that the file holds, with its weights, in eval mode.

    What is not given is taken from the file: the variant and the number of classes from the weights, the
    input size from the metadata, else 256 pixels. UserError where the file holds no known variant or not the
    one named.
    """
    path = Path(path)
    state = read_state_dict(path)
    name = name or identify_variant(state) or _closest_variant(state)
    if name is None:
        raise UserError(
            f"checkpoint {path} holds none of {', '.join(VARIANTS)} (its first entries are "
            f"{_listed(list(state))}); give official or timm weights of one of these"
        )
    weight = state.get(CLASSIFIER[0])
    if num_classes is None:
        num_classes = weight.shape[0] if weight is not None and weight.ndim == 2 else 1000
    if input_size is None:
        input_size = checkpoint_metadata(path).input_size or 256
    model = build_model(name, num_classes, input_size, seed=0)
    return _apply_state(model, path, state).eval()


def bundled_checkpoint(name: str) -> Path | None:
    """Gives the checkpoint that comes with the package for variant `name`, None where there is none."""
    return PRETRAINED / BUNDLED[name] if name in BUNDLED else None
