"""Recipes: what they hold, and how a wrong file is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edgenext_tvm.errors import UserError
from edgenext_tvm.quantize.observers import MIN_SCALE
from edgenext_tvm.quantize.recipe import ActivationQParams, Recipe, weights_sha256


@pytest.fixture
def recipe_file(small_program, tmp_path: Path) -> Path:
    return small_program.recipe.save(tmp_path / "recipe.json")


def test_saved_recipe_reads_back_equal(small_program, recipe_file: Path) -> None:
    loaded = Recipe.load(recipe_file)
    assert loaded == small_program.recipe
    assert list(loaded.activations) == list(small_program.recipe.activations)


def test_saving_again_writes_the_same_bytes(recipe_file: Path, tmp_path: Path) -> None:
    again = Recipe.load(recipe_file).save(tmp_path / "again.json")
    assert again.read_bytes() == recipe_file.read_bytes()


def test_recipe_states_what_it_was_made_from(small_program) -> None:
    recipe = small_program.recipe
    assert (recipe.model, recipe.input_size, recipe.num_classes) == ("SmallHybrid", 32, 5)
    assert (recipe.calibration.source, recipe.calibration.num_images) == ("synthetic:6", 6)
    assert recipe.versions.torch == torch.__version__


def test_each_tensor_takes_one_line(recipe_file: Path) -> None:
    lines = recipe_file.read_text().splitlines()
    assert any(line.strip().startswith('"stem:conv2d": {"scale": ') for line in lines)


@given(st.floats(MIN_SCALE, 2.0**100, width=32))
def test_scale_survives_the_file_bit_for_bit(scale: float) -> None:
    params = ActivationQParams(scale=scale, zero_point=3)
    read = ActivationQParams.model_validate_json(params.model_dump_json())
    assert np.float32(read.scale).tobytes() == np.float32(scale).tobytes()


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read recipe .*none\.json: No such file"):
        Recipe.load(tmp_path / "none.json")


def test_truncated_file(recipe_file: Path) -> None:
    recipe_file.write_text(recipe_file.read_text()[:-100])
    with pytest.raises(UserError, match=r"recipe\.json is not complete JSON \(line \d+.*truncated"):
        Recipe.load(recipe_file)


def test_binary_file(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UserError, match=r"weights\.bin is not a text file"):
        Recipe.load(path)


@pytest.mark.parametrize("content", ["[1, 2]", '{"name": "x"}', "3"])
def test_foreign_json(tmp_path: Path, content: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"other\.json is not a quantization recipe: field 'format' is None"):
        Recipe.load(path)


def test_other_version(recipe_file: Path) -> None:
    values = json.loads(recipe_file.read_text())
    recipe_file.write_text(json.dumps({**values, "version": 2}))
    with pytest.raises(UserError, match=r"has version 2, this program reads version 1"):
        Recipe.load(recipe_file)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (("activations", "stem:conv2d", "scale"), 0.0, r"activations\.stem:conv2d\.scale.*found 0\.0"),
        (("activations", "stem:conv2d", "scale"), 1e-40, r"activations\.stem:conv2d\.scale"),
        (("activations", "stem:conv2d", "zero_point"), 128, r"zero_point.*found 128"),
        (("activations",), {}, r"field 'activations'"),
        (("preprocessing", "crop_size"), 999, r"preprocessing.*crop_size 999 is larger than resize_size 36"),
        (("preprocessing", "std"), [0.2, 0.0, 0.2], r"preprocessing\.std\.1"),
        (("weights_sha256",), "abc", r"weights_sha256.*found 'abc'"),
        (("input_size",), "large", r"input_size.*found 'large'"),
        (("observer", "method"), "best", r"observer"),
        (("surplus",), 1, r"field 'surplus'"),
    ],
)
def test_wrong_field_is_named(recipe_file: Path, field: tuple, value: object, message: str) -> None:
    values = json.loads(recipe_file.read_text())
    place = values
    for key in field[:-1]:
        place = place[key]
    place[field[-1]] = value
    recipe_file.write_text(json.dumps(values))
    with pytest.raises(UserError, match=message) as error:
        Recipe.load(recipe_file)
    assert str(recipe_file) in str(error.value)


def test_unwritable_place(small_program, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot write recipe .*absent"):
        small_program.recipe.save(tmp_path / "absent" / "recipe.json")


def test_digest_of_weights_sees_values_names_and_shapes() -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    digest = weights_sha256(model)
    assert digest == weights_sha256(model)
    other = nn.Linear(4, 3)
    other.load_state_dict(model.state_dict())
    assert weights_sha256(other) == digest
    other.weight.data[2, 3] += 1e-6
    assert weights_sha256(other) != digest
    assert weights_sha256(nn.Sequential(model)) != digest
