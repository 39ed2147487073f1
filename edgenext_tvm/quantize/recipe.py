"""A recipe: everything that calibration decided, as a small JSON file that can be read, compared and
versioned.

With a recipe and the same float weights, the same quantized program is built again without any image.

Version 2 added what is done to the weights (equalization, rounding, bias correction), each tensor's method and
its width. Version 1 is read as a recipe without them.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_serializer, field_validator, model_validator

from edgenext_tvm.errors import UserError
from edgenext_tvm.quantize.equalize import Equalization
from edgenext_tvm.quantize.observers import INT16_STEPS, LEVELS, MIN_SCALE, Dtype, ObserverSettings
from edgenext_tvm.quantize.preprocess import Preprocessing

FORMAT: Literal["edgenext_tvm.recipe"] = "edgenext_tvm.recipe"
VERSION: Literal[2] = 2
READABLE_VERSIONS = (1, 2)
# Objects written one entry a line, all else stands on the line of its entry: two recipes compare line by line.
OPEN_OBJECTS = (
    "", "preprocessing", "calibration", "observer", "versions", "activations",
    "equalization", "equalization.attention", "equalization.norms", "rounding", "bias_correction",
)  # fmt: skip

Finite = Annotated[float, Field(allow_inf_nan=False)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ActivationQParams(_Strict):
    """Parameters of one tensor: `real = scale * (q - zero_point)`; scale is a float32 value.

    dtype: int8, q in [-128, 127]; or int16, q in [-2048, 2047]. method: how the range was chosen, for the
        record.
    """

    scale: Annotated[float, Field(ge=MIN_SCALE / INT16_STEPS, le=3.0e38, allow_inf_nan=False)]
    zero_point: int
    dtype: Dtype = "int8"
    method: str | None = None

    @model_validator(mode="after")
    def _in_range(self) -> ActivationQParams:
        low, high = LEVELS[self.dtype]
        if not low <= self.zero_point <= high:
            raise ValueError(f"zero_point is outside of {self.dtype}, {low} to {high}")
        if self.dtype == "int8" and self.scale < MIN_SCALE:
            raise ValueError(f"scale is below the least of int8, {MIN_SCALE}")
        return self

    @property
    def quantization(self) -> tuple[float, int, Dtype]:
        """(scale, zero_point, dtype): all that decides the program."""
        return self.scale, self.zero_point, self.dtype

    @field_validator("scale")
    @classmethod
    def _float32(cls, scale: float) -> float:
        return float(np.float32(scale))

    @field_serializer("scale")
    def _shortest(self, scale: float) -> float:
        # The shortest decimal that reads back as the same float32 keeps the file readable.
        return float(str(np.float32(scale)))


class Calibration(_Strict):
    """Which images were seen: where they came from, how many, which seed chose them, digest of their
    encoded bytes.
    """

    source: str
    num_images: Annotated[int, Field(ge=1)]
    seed: int
    sha256: Sha256


class Versions(_Strict):
    """Packages that made the recipe, for the record; other versions read it too."""

    torch: str
    torchao: str


class Recipe(_Strict):
    """Fixes a quantized program, given the float weights.

    activations: parameters by stable tensor key. equalization: factors on weights. rounding: by module path, what
        is added to the levels of weights rounded to nearest, packed by `pack_levels`. bias_correction: by module
        path, what is added to the biases.
    """

    format: Literal["edgenext_tvm.recipe"] = FORMAT
    version: Literal[2] = VERSION
    model: str
    input_size: Annotated[int, Field(ge=1)]
    num_classes: Annotated[int, Field(ge=1)]
    preprocessing: Preprocessing
    weights_sha256: Sha256
    calibration: Calibration
    observer: ObserverSettings
    versions: Versions
    equalization: Equalization = Equalization()
    rounding: dict[str, str] = {}
    bias_correction: dict[str, tuple[Finite, ...]] = {}
    activations: Annotated[dict[str, ActivationQParams], Field(min_length=1)]

    def save(self, path: str | Path) -> Path:
        """Writes the recipe as JSON, keys in program order; returns the path."""
        path = Path(path)
        partial = path.with_name(path.name + ".partial")
        try:
            partial.write_text(self._text(), encoding="utf-8")
            partial.replace(path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise UserError(f"cannot write recipe {path}: {error.strerror}; give a writable file path") from error
        return path

    def _text(self) -> str:
        values = self.model_dump(mode="json")
        for entry in values["activations"].values():
            if entry["dtype"] == "int8":
                del entry["dtype"]
            if entry["method"] is None:
                del entry["method"]
        return _json_text(values, "", "") + "\n"

    @staticmethod
    def load(path: str | Path) -> Recipe:
        """Reads a recipe. Fails with `UserError` naming the file and the field that is wrong."""
        path = Path(path)
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(
                f"cannot read recipe {path}: {error.strerror}; give a recipe.json written by quantization"
            ) from error
        except UnicodeDecodeError as error:
            raise UserError(f"recipe {path} is not a text file; give a recipe.json written by quantization") from error
        except json.JSONDecodeError as error:
            raise UserError(
                f"recipe {path} is not complete JSON (line {error.lineno}: {error.msg}); it may be "
                "truncated, write it again"
            ) from error
        found = values.get("format") if isinstance(values, dict) else None
        if found != FORMAT:
            raise UserError(f"{path} is not a quantization recipe: field 'format' is {found!r}, expected {FORMAT!r}")
        if values.get("version") not in READABLE_VERSIONS:
            raise UserError(
                f"recipe {path} has version {values.get('version')!r}, this program reads versions "
                f"{' and '.join(map(str, READABLE_VERSIONS))}; make the recipe again"
            )
        values["version"] = VERSION
        try:
            return Recipe.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise UserError(
                f"recipe {path}: field '{field}': {first['msg']} (found {_brief(first['input'])}); make "
                "the recipe again"
            ) from error


def _json_text(value: Any, path: str, indent: str) -> str:
    if path not in OPEN_OBJECTS or not value:
        return json.dumps(value)
    inner = indent + "  "
    entries = [
        f"{inner}{json.dumps(key)}: {_json_text(entry, f'{path}.{key}' if path else key, inner)}"
        for key, entry in value.items()
    ]
    return "{\n" + ",\n".join(entries) + f"\n{indent}}}"


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def weights_sha256(model: torch.nn.Module) -> str:
    """Digest of all parameters and buffers: names, types, shapes and values, in sorted order of names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name}:{values.dtype}:{list(values.shape)};".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()
