"""Quantized programs: the same bits from images, from a recipe and from a file."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch

from edgenext_tvm.errors import UserError
from edgenext_tvm.model.checkpoint import BUNDLED as WITH_WEIGHTS
from edgenext_tvm.model.checkpoint import bundled_checkpoint, load_model
from edgenext_tvm.model.edgenext import build_model
from edgenext_tvm.quantize import (
    Preprocessing,
    QuantizedProgram,
    Recipe,
    open_images,
    quantize_model,
    quantize_with_recipe,
)
from edgenext_tvm.quantize.accuracy import compare
from edgenext_tvm.quantize.recipe import weights_sha256

BUNDLED = "edgenext_xx_small"


def assert_same_program(a: QuantizedProgram, b: QuantizedProgram, x: torch.Tensor) -> None:
    assert str(a.exported.graph) == str(b.exported.graph)
    assert a.exported.state_dict.keys() == b.exported.state_dict.keys()
    for name, tensor in a.exported.state_dict.items():
        assert torch.equal(tensor, b.exported.state_dict[name]), name
    assert torch.equal(a(x), b(x))
    assert a.recipe == b.recipe


def test_recipe_rebuilds_the_program_without_images(small_model, small_program, small_input, tmp_path) -> None:
    recipe = Recipe.load(small_program.recipe.save(tmp_path / "recipe.json"))
    assert_same_program(quantize_with_recipe(small_model, recipe), small_program, small_input)


def test_saved_program_loads_bit_for_bit(small_program, small_input, tmp_path: Path) -> None:
    loaded = QuantizedProgram.load(small_program.save(tmp_path / "program.pt2"))
    assert_same_program(loaded, small_program, small_input)


def test_a_program_made_again_is_the_same_file_and_names_no_folder(small_model, small_program, tmp_path: Path) -> None:
    files = []
    for name, program in (("a", small_program), ("b", quantize_with_recipe(small_model, small_program.recipe))):
        (tmp_path / name).mkdir()
        files.append(program.save(tmp_path / name / "program.pt2"))
    assert files[0].read_bytes() == files[1].read_bytes()
    with zipfile.ZipFile(files[0]) as archive:
        content = b"".join(archive.read(name) for name in archive.namelist())
    for folder in (Path(torch.__file__).parent, Path(__file__).parents[2]):
        assert str(folder).encode() not in content


def test_calibrating_twice_gives_the_same_program(small_model, small_program, small_preprocessing, small_input) -> None:
    again = quantize_model(small_model, open_images("synthetic:6"), small_preprocessing, quiet=True)
    assert_same_program(again, small_program, small_input)


def test_int8_program_follows_the_float_model(small_model, small_program) -> None:
    accuracy = compare(small_program, small_model, open_images("synthetic:8"), quiet=True)
    assert accuracy.signal_to_noise_db > 25


def test_larger_batches_compute_the_same(small_model, small_program, small_input) -> None:
    batch = quantize_with_recipe(small_model, small_program.recipe, batch_size=3)
    x = small_input.repeat(3, 1, 1, 1)
    assert torch.allclose(batch(x), small_program(small_input).expand(3, -1), atol=1e-6)


def test_nothing_but_float_weights_decides_beside_the_recipe(small_model, small_program) -> None:
    before = {name: tensor.clone() for name, tensor in small_model.state_dict().items()}
    quantize_with_recipe(small_model, small_program.recipe)
    assert all(torch.equal(tensor, before[name]) for name, tensor in small_model.state_dict().items())


def test_recipe_for_other_weights(small_model, small_program) -> None:
    values = small_program.recipe.model_copy(update={"weights_sha256": "0" * 64})
    with pytest.raises(UserError, match=r"made for other weights: field 'weights_sha256' is 000000000000"):
        quantize_with_recipe(small_model, values)


def test_recipe_that_lacks_a_tensor(small_model, small_program) -> None:
    activations = dict(small_program.recipe.activations)
    del activations["stem:conv2d"]
    activations["stem:conv3d"] = activations["input"]
    recipe = small_program.recipe.model_copy(update={"activations": activations})
    with pytest.raises(UserError, match=r"it lacks 'stem:conv2d' \(1 missing, 1 unknown\); calibrate again"):
        quantize_with_recipe(small_model, recipe)


def test_recipe_with_a_tensor_the_model_has_not(small_model, small_program) -> None:
    activations = {**small_program.recipe.activations, "neck:add": small_program.recipe.activations["input"]}
    recipe = small_program.recipe.model_copy(update={"activations": activations})
    with pytest.raises(UserError, match=r"it has 'neck:add', which the model has not"):
        quantize_with_recipe(small_model, recipe)


def test_recipe_that_tears_a_shared_scale_apart(small_model, small_program) -> None:
    activations = dict(small_program.recipe.activations)
    changed = activations["split_block:cat"]
    activations["split_block:cat"] = changed.model_copy(update={"scale": 2 * changed.scale})
    recipe = small_program.recipe.model_copy(update={"activations": activations})
    with pytest.raises(UserError, match=r"split_block\.convs\.0:conv2d, .*split_block:cat share one scale"):
        quantize_with_recipe(small_model, recipe)


def test_model_and_preprocessing_of_different_sizes() -> None:
    model = build_model(BUNDLED, 10, 64, seed=0)
    with pytest.raises(UserError, match=r"built for input size 64, but preprocessing crops to 96"):
        quantize_model(model, open_images("synthetic:1"), Preprocessing(resize_size=96, crop_size=96))


def test_program_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no quantized program at .*none\.pt2"):
        QuantizedProgram.load(tmp_path / "none.pt2")


@pytest.mark.parametrize("missing_bytes", [50, 2000, 60_000])
def test_truncated_program_file(missing_bytes: int, small_program, tmp_path: Path) -> None:
    path = small_program.save(tmp_path / "program.pt2")
    path.write_bytes(path.read_bytes()[:-missing_bytes])
    with pytest.raises(UserError, match=r"cannot read .*program\.pt2 as an exported program .*truncated"):
        QuantizedProgram.load(path)


def test_zip_file_that_is_no_program(tmp_path: Path) -> None:
    path = tmp_path / "other.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(UserError, match=r"cannot read .*other\.pt2 as an exported program"):
        QuantizedProgram.load(path)


def test_exported_program_without_recipe(small_program, tmp_path: Path) -> None:
    path = tmp_path / "plain.pt2"
    torch.export.save(small_program.exported, str(path))
    with pytest.raises(UserError, match=r"plain\.pt2 is an exported program without a valid recipe"):
        QuantizedProgram.load(path)


def test_program_needs_its_suffix_and_folder(small_program, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"must end in \.pt2; try .*program\.pt2"):
        small_program.save(tmp_path / "program.bin")
    with pytest.raises(UserError, match=r"folder .*absent does not exist"):
        small_program.save(tmp_path / "absent" / "program.pt2")


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_every_bundled_checkpoint_has_a_recipe_of_its_own(name: str) -> None:
    path = bundled_checkpoint(name)
    assert path is not None
    recipe = Recipe.load(path.with_suffix(".recipe.json"))
    assert recipe.weights_sha256 == weights_sha256(load_model(path))
    assert recipe.calibration.num_images == 512


def bundled() -> tuple[torch.nn.Module, QuantizedProgram]:
    path = bundled_checkpoint(BUNDLED)
    assert path is not None
    model = load_model(path)
    return model, quantize_with_recipe(model, Recipe.load(path.with_suffix(".recipe.json")))


def test_bundled_recipe_keeps_the_classes_of_the_float_model(shared_data: Path) -> None:
    model, program = bundled()
    accuracy = compare(program, model, open_images(shared_data / "cifar10_test.npz", limit=100), quiet=True)
    assert accuracy.agreement >= 0.95
    # 26 dB on all 10,000 images
    assert accuracy.signal_to_noise_db > 25
    assert accuracy.quantized_top1 is not None
    assert accuracy.quantized_top1 > 0.6


@pytest.mark.slow
def test_bundled_recipe_costs_less_than_one_point(shared_data: Path) -> None:
    model, program = bundled()
    accuracy = compare(program, model, open_images(shared_data / "cifar10_test.npz", limit=1000), quiet=True)
    assert accuracy.float_top1 is not None
    assert accuracy.quantized_top1 is not None
    assert accuracy.quantized_top1 >= accuracy.float_top1 - 0.01
    assert accuracy.agreement >= 0.97
