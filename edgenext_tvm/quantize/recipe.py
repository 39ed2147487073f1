"""A recipe: everything that calibration decided, as a small JSON file that can be read, compared and
versioned.

With a recipe and the same float weights, the same quantized program is built again without any image.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_serializer, field_validator

from edgenext_tvm.errors import UserError
from edgenext_tvm.quantize.observers import MIN_SCALE, QMAX, QMIN, ObserverSettings
from edgenext_tvm.quantize.preprocess import Preprocessing

FORMAT: Literal["edgenext_tvm.recipe"] = "edgenext_tvm.recipe"
VERSION: Literal[1] = 1

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ActivationQParams(_Strict):
    """Parameters of one tensor: `real = scale * (q - zero_point)`, q int8; scale is a float32 value."""

    scale: Annotated[float, Field(ge=MIN_SCALE, le=3.0e38, allow_inf_nan=False)]
    zero_point: Annotated[int, Field(ge=QMIN, le=QMAX)]

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
    """Fixes a quantized program, given the float weights. `activations` maps stable tensor keys to
    parameters.
    """

    format: Literal["edgenext_tvm.recipe"] = FORMAT
    version: Literal[1] = VERSION
    model: str
    input_size: Annotated[int, Field(ge=1)]
    num_classes: Annotated[int, Field(ge=1)]
    preprocessing: Preprocessing
    weights_sha256: Sha256
    calibration: Calibration
    observer: ObserverSettings
    versions: Versions
    activations: Annotated[dict[str, ActivationQParams], Field(min_length=1)]

    def save(self, path: str | Path) -> Path:
        """Writes the recipe as JSON, keys in program order; returns the path."""
        path = Path(path)
        values = self.model_dump(mode="json")
        activations = values.pop("activations")
        head = json.dumps(values, indent=2).removesuffix("\n}")
        # One line per tensor makes two recipes easy to compare.
        lines = ",\n".join(f"    {json.dumps(key)}: {json.dumps(value)}" for key, value in activations.items())
        text = f'{head},\n  "activations": {{\n{lines}\n  }}\n}}\n'
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise UserError(f"cannot write recipe {path}: {error.strerror}; give a writable file path") from error
        return path

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
        if values.get("version") != VERSION:
            raise UserError(
                f"recipe {path} has version {values.get('version')!r}, this program reads version "
                f"{VERSION}; make the recipe again"
            )
        try:
            return Recipe.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise UserError(
                f"recipe {path}: field '{field}': {first['msg']} (found {_brief(first['input'])}); make "
                "the recipe again"
            ) from error


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
