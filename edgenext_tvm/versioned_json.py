"""Reads the project's own JSON files: format and version are checked first, then every field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from edgenext_tvm.errors import UserError

_Model = TypeVar("_Model", bound=BaseModel)


def read_versioned_json(path: Path, model: type[_Model], kind: str, advice: str) -> _Model:
    """The file at `path` as `model`, whose fields `format` and `format_version` have the only values it may have.

    UserError for a damaged, foreign, newer or invalid file: it names the file, the first wrong field, and `advice`.
    """
    wanted, version = (model.model_fields[field].default for field in ("format", "format_version"))
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged or no JSON ({error}); {advice}") from None
    if not isinstance(data, dict) or data.get("format") != wanted:
        found = data.get("format") if isinstance(data, dict) else type(data).__name__
        raise UserError(f"{path} is not a {kind} (format {found!r}, expected {wanted!r}); {advice}")
    if data.get("format_version") != version:
        raise UserError(
            f"{path} has format version {data.get('format_version')!r}; this program reads version {version}; {advice}"
        )
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise invalid_field(path, error, advice) from None


def invalid_field(path: Path, error: ValidationError, advice: str) -> UserError:
    """The error that names the file and the first field that is wrong in it."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return UserError(f"{path}: {where}: {first['msg']}; {advice}")
