"""The seven EdgeNeXt variants as frozen values (arXiv 2206.10589, table 1 and section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgenext_tvm.errors import UserError

Norm = Literal["layer_norm", "batch_norm"]
Activation = Literal["gelu", "hardswish"]

INPUT_SIZE_MULTIPLE = 32
MIN_INPUT_SIZE = 64
# 65536 tokens in stage 1, whose int8 products still sum in 32 bits
MAX_INPUT_SIZE = 2048
MAX_NUM_CLASSES = 1_000_000


@dataclass(frozen=True)
class EdgeNeXtConfig:
    """Fixes every shape of one variant, except input size and number of classes.

    Stages count from 0. Stages 1, 2 and 3 end with one SDTA block, all other blocks are convolution encoders;
    the Fourier position encoding is added in stage 1's SDTA block only.
    """

    name: str
    depths: tuple[int, int, int, int]
    dims: tuple[int, int, int, int]
    heads: tuple[int, int, int, int]
    kernel_sizes: tuple[int, int, int, int] = (3, 5, 7, 9)
    scales: tuple[int, int, int, int] = (2, 2, 3, 4)
    sdta_blocks: tuple[int, int, int, int] = (0, 1, 1, 1)
    position_encoding: tuple[bool, bool, bool, bool] = (False, True, False, False)
    expansion: int = 4
    norm: Norm = "layer_norm"
    activation: Activation = "gelu"


def _variants() -> dict[str, EdgeNeXtConfig]:
    small = (3, 3, 9, 3)
    configs = [
        EdgeNeXtConfig("edgenext_xx_small", (2, 2, 6, 2), (24, 48, 88, 168), (4, 4, 4, 4)),
        EdgeNeXtConfig("edgenext_x_small", small, (32, 64, 100, 192), (4, 4, 4, 4)),
        EdgeNeXtConfig("edgenext_small", small, (48, 96, 160, 304), (8, 8, 8, 8)),
        EdgeNeXtConfig("edgenext_base", small, (80, 160, 288, 584), (8, 8, 8, 8)),
    ]
    for config in configs[:3]:
        configs.append(
            EdgeNeXtConfig(
                f"{config.name}_bn_hs",
                config.depths,
                config.dims,
                config.heads,
                norm="batch_norm",
                activation="hardswish",
            )
        )
    return {config.name: config for config in configs}


VARIANTS: dict[str, EdgeNeXtConfig] = _variants()


def get_config(name: str) -> EdgeNeXtConfig:
    """Returns the variant called `name`; UserError lists all variants where there is none."""
    if name not in VARIANTS:
        raise UserError(f"unknown model {name!r}; the variants are: {', '.join(VARIANTS)}")
    return VARIANTS[name]


def check_input_size(input_size: int) -> int:
    """Returns `input_size` (pixels) where EdgeNeXt can run at it, else UserError with the nearest sizes."""
    if isinstance(input_size, bool) or not isinstance(input_size, int):
        raise UserError(f"input size {input_size!r} is not an integer: give one side in pixels, e.g. 256")
    if input_size > MAX_INPUT_SIZE:
        raise UserError(f"input size {input_size} is not possible: it must be at most {MAX_INPUT_SIZE}; try 256")
    if input_size < MIN_INPUT_SIZE or input_size % INPUT_SIZE_MULTIPLE:
        below = max(MIN_INPUT_SIZE, input_size // INPUT_SIZE_MULTIPLE * INPUT_SIZE_MULTIPLE)
        above = max(MIN_INPUT_SIZE, below + INPUT_SIZE_MULTIPLE)
        try_next = f"{below}" if input_size < MIN_INPUT_SIZE else f"{below} or {above}"
        raise UserError(
            f"input size {input_size} is not possible: it must be a multiple of {INPUT_SIZE_MULTIPLE} "
            f"and at least {MIN_INPUT_SIZE}; try {try_next}"
        )
    return input_size


def check_num_classes(num_classes: int) -> int:
    """Returns `num_classes` where it is an integer from 1 to MAX_NUM_CLASSES, else raises UserError."""
    is_integer = isinstance(num_classes, int) and not isinstance(num_classes, bool)
    if not is_integer or not 1 <= num_classes <= MAX_NUM_CLASSES:
        raise UserError(
            f"number of classes {num_classes!r} is not possible: give an integer of at least 1 "
            f"and at most {MAX_NUM_CLASSES}"
        )
    return num_classes
