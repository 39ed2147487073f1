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
from edgenext_tvm.quantize.equalize import Equalization
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


def test_a_change_of_one_entry_is_a_change_of_one_line(small_program, recipe_file: Path, tmp_path: Path) -> None:
    recipe = small_program.recipe
    params = recipe.activations["stem:conv2d"]
    changed = recipe.model_copy(
        update={
            "activations": {**recipe.activations, "stem:conv2d": params.model_copy(update={"zero_point": 7})},
            "equalization": Equalization(norms={"a": (1, 2), "b": (3,)}),
        }
    )
    lines = changed.save(tmp_path / "changed.json").read_text().splitlines()
    assert '      "a": [1, 2],' in lines
    different = set(lines) - set(recipe_file.read_text().splitlines())
    assert len([line for line in different if "stem:conv2d" in line]) == 1


def test_only_wide_tensors_tell_their_width(small_program, tmp_path: Path) -> None:
    recipe = small_program.recipe
    wide = ActivationQParams(scale=1e-8, zero_point=-2048, dtype="int16")
    mixed = recipe.model_copy(update={"activations": {**recipe.activations, "stem:conv2d": wide}})
    path = mixed.save(tmp_path / "mixed.json")
    assert path.read_text().count('"dtype"') == 1
    assert Recipe.load(path) == mixed


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
    recipe_file.write_text(json.dumps({**values, "version": 3}))
    with pytest.raises(UserError, match=r"has version 3, this program reads versions 1 and 2"):
        Recipe.load(recipe_file)


def test_version_1_reads_as_a_recipe_that_leaves_the_weights_alone(recipe_file: Path) -> None:
    values = json.loads(recipe_file.read_text())
    for field in ("equalization", "rounding", "bias_correction"):
        del values[field]
    for params in values["activations"].values():
        params.pop("method", None)
    recipe_file.write_text(json.dumps({**values, "version": 1}))
    recipe = Recipe.load(recipe_file)
    assert recipe.version == 2
    assert (recipe.equalization, recipe.rounding, recipe.bias_correction) == (Equalization(), {}, {})
    assert {params.dtype for params in recipe.activations.values()} == {"int8"}


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (("activations", "stem:conv2d", "scale"), 0.0, r"activations\.stem:conv2d\.scale.*found 0\.0"),
        (("activations", "stem:conv2d", "scale"), 1e-40, r"activations\.stem:conv2d\.scale"),
        (("activations", "stem:conv2d", "zero_point"), 128, r"stem:conv2d.*zero_point is outside of int8"),
        (("activations", "stem:conv2d", "dtype"), "int4", r"stem:conv2d\.dtype.*found 'int4'"),
        (("equalization",), {"attention": {"xca": {"q": [41], "k": [], "v": []}}}, r"attention\.xca\.q\.0.*found 41"),
        (("bias_correction",), {"stem": [1e999]}, r"bias_correction\.stem\.0.*found inf"),
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
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=r"cannot write recipe .*folder"):
        small_program.recipe.save(tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


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
