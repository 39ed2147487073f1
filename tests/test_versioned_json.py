"""Every way in which a file of the project's own can be wrong is one error with the file's name and the advice."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel

from edgenext_tvm.errors import UserError
from edgenext_tvm.versioned_json import read_versioned_json


class Shelf(BaseModel):
    format: Literal["shelf"] = "shelf"
    format_version: Literal[2] = 2
    books: dict[str, int]


def test_a_valid_file_becomes_the_model(tmp_path: Path) -> None:
    path = tmp_path / "shelf.json"
    path.write_text(Shelf(books={"a": 1}).model_dump_json())
    assert read_versioned_json(path, Shelf, "shelf", "write it again").books == {"a": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format": "she', "is damaged or no JSON"),
        ("[]", "is not a shelf (format 'list', expected 'shelf')"),
        ('{"format": "table"}', "is not a shelf (format 'table', expected 'shelf')"),
        ('{"format": "shelf", "format_version": 3}', "has format version 3; this program reads version 2"),
        ('{"format": "shelf", "format_version": 2, "books": {"a": "x"}}', "books.a: Input should be a valid integer"),
    ],
)
def test_a_wrong_file_is_one_error(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "shelf.json"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_versioned_json(path, Shelf, "shelf", "write it again")
    assert str(caught.value).startswith(str(path)) and message in str(caught.value)
    assert str(caught.value).endswith("; write it again")


def test_a_file_that_cannot_be_read_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is damaged or no JSON .*; write it again"):
        read_versioned_json(tmp_path / "absent.json", Shelf, "shelf", "write it again")
