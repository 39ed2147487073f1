"""Maps parameter names of EdgeNeXt checkpoints, the official repository's and timm's, one to one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

Value = TypeVar("Value")

_TO_TIMM = (
    (r"^downsample_layers\.0\.", "stem."),
    (r"^downsample_layers\.([1-3])\.", r"stages.\1.downsample."),
    (r"^stages\.(\d+)\.(\d+)\.", r"stages.\1.blocks.\2."),
    (r"\.dwconv\.", ".conv_dw."),
    (r"\.pwconv([12])\.", r".mlp.fc\1."),
    (r"^norm\.", "head.norm."),
    (r"^head\.(weight|bias)$", r"head.fc.\1"),
)
_TO_OFFICIAL = (
    (r"^stem\.", "downsample_layers.0."),
    (r"^stages\.([1-3])\.downsample\.", r"downsample_layers.\1."),
    (r"^stages\.(\d+)\.blocks\.(\d+)\.", r"stages.\1.\2."),
    (r"\.conv_dw\.", ".dwconv."),
    (r"\.mlp\.fc([12])\.", r".pwconv\1."),
    (r"^head\.norm\.", "norm."),
    (r"^head\.fc\.", "head."),
)


def _rename(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def to_timm_names(state: Mapping[str, Value]) -> dict[str, Value]:
    """Gives every entry its timm name, whichever of the two schemes (or DistributedDataParallel) named it."""
    return {_rename(name.removeprefix("module."), _TO_TIMM): value for name, value in state.items()}


def to_official_names(state: Mapping[str, Value]) -> dict[str, Value]:
    """Gives every entry of a state with timm's names the name that the official repository gives it."""
    return {_rename(name, _TO_OFFICIAL): value for name, value in state.items()}
