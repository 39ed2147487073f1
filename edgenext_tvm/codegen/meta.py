"""What code generation must know about a model beside its lowered module."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgenext_tvm.errors import UserError

if TYPE_CHECKING:  # importing the package would load torch
    from edgenext_tvm.quantize.preprocess import Preprocessing

Precision = Literal["int8", "float32"]
GOLDEN_KINDS = ("RANDOM", "CONSTANT", "GRADIENT", "IMAGE")


@dataclass(frozen=True)
class ModelMeta:
    """Names and numbers of one model.

    name           C identifier: names the files, the macros and `enx_model_NAME`
    model          what the user asked for, e.g. "edgenext_xx_small"
    input_scale    real = input_scale * (q - input_zero_point) of the int8 input; 1 and 0 for float32 models
    preprocessing  None: the library has no enx_preprocess_rgb8
    recipe         the quantization recipe as JSON data, {} for float32
    weights_sha256 of the checkpoint the model came from, "" if there is none
    """

    name: str
    model: str
    precision: Precision
    input_scale: float = 1.0
    input_zero_point: int = 0
    output_scale: float = 1.0
    output_zero_point: int = 0
    preprocessing: Preprocessing | None = None
    recipe: dict[str, Any] = field(default_factory=dict)
    weights_sha256: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", self.name):
            raise UserError(
                f"model name '{self.name}' is not a C identifier; use letters, digits and "
                "underscores, starting with a "
                "letter, for example 'edgenext_xx_small'"
            )
        if self.precision not in ("int8", "float32"):
            raise UserError(f"precision '{self.precision}' is unknown; allowed: int8, float32")


@dataclass(frozen=True)
class GoldenVector:
    """An input that the runtime can generate, and the logits a correct build gives; see enx_golden.h.

    expected_logits  float32 [num_classes]; None only for kind IMAGE
    crc32            kind IMAGE: CRC-32 of the input tensor's bytes
    tolerance        largest absolute difference of a logit; 0 means the same bits
    """

    kind: str
    seed: int = 0
    value: int = 0
    expected_logits: np.ndarray | None = None
    width: int = 0
    height: int = 0
    crc32: int = 0
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in GOLDEN_KINDS:
            raise UserError(f"golden vector kind '{self.kind}' is unknown; allowed: {', '.join(GOLDEN_KINDS)}")
        if self.kind in ("RANDOM", "IMAGE") and not 0 < self.seed < 2**32:
            raise UserError(f"golden vector seed {self.seed} is out of range; xorshift32 needs 1 to 4294967295")
        if self.kind != "IMAGE" and self.expected_logits is None:
            raise UserError(f"golden vector of kind {self.kind} has no expected logits; only IMAGE may omit them")


def input_table_float(preprocessing: Preprocessing) -> np.ndarray:
    """float32 [3, 256]: the normalised value of each 8-bit level, per channel R, G, B."""
    levels = np.arange(256, dtype=np.float32) / np.float32(255)
    mean = np.asarray(preprocessing.mean, np.float32)[:, None]
    std = np.asarray(preprocessing.std, np.float32)[:, None]
    return (levels - mean) / std


def input_table_int8(preprocessing: Preprocessing, scale: float, zero_point: int) -> np.ndarray:
    """int8 [3, 256]: `input_table_float` quantized as PT2E does, round(x * (1 / scale)) + zero_point, saturated."""
    scaled = input_table_float(preprocessing) * np.float32(1.0 / scale)
    return np.clip(np.rint(scaled) + zero_point, -128, 127).astype(np.int8)
