"""`edgenext-tvm quantize`: a recipe file, a table or one JSON object, one error line for a mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
from click.testing import CliRunner

from edgenext_tvm.cli import cli
from edgenext_tvm.commands.quantize import METHODS
from edgenext_tvm.errors import UserError
from edgenext_tvm.quantize import Recipe
from edgenext_tvm.quantize.calibrate import DEFAULT_CALIBRATION_IMAGES
from edgenext_tvm.quantize.observers import Method, ObserverSettings

MODEL = "edgenext_xx_small"


def quantize(*arguments: object):
    return CliRunner().invoke(cli, ["quantize", MODEL, "--input-size", "64", *map(str, arguments)])


def test_recipe_is_written_and_told(tmp_path: Path) -> None:
    out = tmp_path / "recipe.json"
    images = ("--calibration", "synthetic:9", "--calibration-images", 2, "--seed", 5, "--evaluate", "synthetic:2")
    steps = ("--rounding-budget", 0, "--no-equalize", "--method", "minmax")
    result = quantize(*images, *steps, "--out", out, "--json")
    assert result.exit_code == 0, result.output
    told, recipe = json.loads(result.stdout), Recipe.load(out)
    assert (told["model"], told["input_size"], told["num_classes"], told["tensors"]) == (MODEL, 64, 10, 97)
    assert told["weights_sha256"] == recipe.weights_sha256
    assert (recipe.calibration.source, recipe.calibration.num_images, recipe.calibration.seed) == ("synthetic:9", 2, 5)
    assert told["calibration"] == recipe.calibration.model_dump(mode="json")
    assert (told["equalized_attentions"], told["rounded_layers"]) == (0, 0)
    assert told["accuracy"]["num_images"] == 2
    assert recipe.observer.method == "minmax"


def test_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.json", "b.json")]
    for file in files:
        result = quantize("--calibration", "synthetic:2", "--rounding-budget", 0, "--out", file)
        assert result.exit_code == 0, result.output
    assert "3 attentions" in result.stdout and "0 layers' weights" in result.stdout
    assert f"next: edgenext-tvm compile {MODEL} --recipe {file}" in result.stdout.replace("\n", "")
    assert files[0].read_bytes() == files[1].read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--calibration", "{tmp}"), r"folder .* holds no images; allowed: \.jpg"),
        (("--calibration", "synthetic:0"), r"'synthetic:0' needs a count of 1 or more"),
        (("--calibration", "synthetic:2", "--calibration-images", "0"), r"image limit is 0; allowed: 1 or more"),
        (("--calibration", "synthetic:2", "--rounding-budget", "-2"), r"rounding budget is -2\.0 minutes; allowed: 0"),
        (("--calibration", "synthetic:2", "--checkpoint", "none.pth"), r"checkpoint none\.pth is not there"),
        (("--calibration", "synthetic:2", "--evaluate", "none"), r"no images at none; give a folder"),
    ],
)
def test_mistakes_are_told_before_any_work(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    given = [argument.format(tmp=tmp_path) for argument in arguments]
    result = quantize(*given, "--out", tmp_path / "recipe.json")
    assert isinstance(result.exception, UserError)
    with pytest.raises(UserError, match=message):
        raise result.exception
    assert list(tmp_path.iterdir()) == []


def test_places_where_no_recipe_can_be_written(tmp_path: Path) -> None:
    for out, message in ((tmp_path, "is a folder"), (tmp_path / "absent" / "r.json", "folder that does not exist")):
        error = quantize("--calibration", "synthetic:1", "--out", out).exception
        assert isinstance(error, UserError)
        assert message in str(error) and "recipe.json" in str(error)


def test_choices_are_those_of_the_package() -> None:
    assert sorted(METHODS) == sorted(get_args(Method))
    (option,) = [p for p in cli.commands["quantize"].params if p.name == "calibration_images"]
    assert option.default == DEFAULT_CALIBRATION_IMAGES
    assert ObserverSettings().method == "mse"
