"""From a checkpoint file to a recipe file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from edgenext_tvm.errors import UserError
from edgenext_tvm.model.checkpoint import bundled_checkpoint
from edgenext_tvm.quantize import Recipe
from edgenext_tvm.quantize.make_recipe import checkpoint_preprocessing, make_recipe

BUNDLED = bundled_checkpoint("edgenext_xx_small")


def test_recipe_file_fixes_the_program(tmp_path: Path) -> None:
    output = tmp_path / "recipe.json"
    program = make_recipe(BUNDLED, "synthetic:9", output, limit=2, seed=5, input_size=64, quiet=True)
    recipe = Recipe.load(output)
    assert recipe == program.recipe
    assert (recipe.model, recipe.input_size, recipe.num_classes) == ("edgenext_xx_small", 64, 10)
    assert (recipe.calibration.num_images, recipe.calibration.seed) == (2, 5)


def test_checkpoint_that_names_its_input_size_sees_whole_images() -> None:
    preprocessing = checkpoint_preprocessing(BUNDLED, 128)
    assert (preprocessing.resize_size, preprocessing.crop_size) == (128, 128)
    assert preprocessing.class_names is not None
    assert preprocessing.class_names[3] == "cat"


def test_checkpoint_without_metadata_is_evaluated_as_on_imagenet(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(1)}, str(tmp_path / "plain.safetensors"))
    preprocessing = checkpoint_preprocessing(tmp_path / "plain.safetensors", 256)
    assert (preprocessing.resize_size, preprocessing.crop_size) == (292, 256)
    assert preprocessing.mean == (0.485, 0.456, 0.406)
    assert preprocessing.class_names is None


def test_impossible_crop_ratio() -> None:
    with pytest.raises(UserError, match=r"crop ratio is 1\.5; allowed: 0\.1 to 1\.0"):
        checkpoint_preprocessing(BUNDLED, 128, crop_ratio=1.5)


def test_other_resize_methods_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "cubic.safetensors"
    save_file({"weight": torch.zeros(1)}, str(path), metadata={"resize": "bicubic"})
    with pytest.raises(UserError, match=r"cubic\.safetensors wants resize 'bicubic'; allowed: 'bilinear'"):
        checkpoint_preprocessing(path, 256)
