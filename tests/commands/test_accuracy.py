"""`edgenext-tvm accuracy`: tables, one JSON object, a picture, and one error line for a mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgenext_tvm.cli import cli
from edgenext_tvm.errors import UserError


def accuracy(*arguments: object):
    return CliRunner().invoke(cli, ["accuracy", *map(str, arguments)])


@pytest.mark.slow
def test_all_of_it_as_one_json_object_and_a_picture(host_build: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "drawn.png"
    result = accuracy(
        host_build, "--images", "synthetic:3", "--layers", "--scan", "--layer-images", 2, "--json", "--picture", picture
    )
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["target"], told["picture"]) == (str(host_build), str(picture)) and picture.is_file()
    assert [stage["images"] for stage in told["ledger"]["stages"]] == [3] * 5
    assert told["layers"]["images"] == 2 and told["layers"]["tensors"][0]["key"] == "input"
    assert len(told["scan"]) > 100


def test_the_ledger_alone_for_people(host_build: Path) -> None:
    result = accuracy(host_build, "--images", "synthetic:2")
    assert result.exit_code == 0, result.output
    assert "float, library preprocessing" in result.stdout and "SQNR" not in result.stdout


def test_mistakes_are_told_before_anything_is_measured(tmp_path: Path) -> None:
    for arguments, message in [
        ((tmp_path / "none", "--images", "synthetic:1"), "no build folder at"),
        ((tmp_path, "--images", "synthetic:1", "--top", 0), "--top is 0; allowed: 1 or more"),
        ((tmp_path, "--images", tmp_path / "none"), "no images at"),
        ((tmp_path, "--images", "synthetic:1", "--layer-images", 0), "image limit is 0"),
        ((tmp_path, "--images", "synthetic:1", "--picture", tmp_path / "a.gif"), "must end in"),
        (("edgenext_xx_small", "--images", "synthetic:1", "--recipe", tmp_path / "none"), "cannot read recipe"),
    ]:
        result = accuracy(*arguments)
        assert isinstance(result.exception, UserError) and message in str(result.exception), message
