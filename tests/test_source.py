"""What MODEL means, and where its weights, its size and its preprocessing come from."""

from __future__ import annotations

import pytest
import torch

from edgenext_tvm.errors import UserError
from edgenext_tvm.model.checkpoint import bundled_checkpoint
from edgenext_tvm.source import is_program_file, load_float_model, model_identifier


def test_a_program_file_is_told_from_a_variant_by_its_suffix() -> None:
    assert [is_program_file(m) for m in ("edgenext_small", "a/b.pt2", "x.onnx", "x.pth")] == [False, True, True, False]


@pytest.mark.parametrize(
    ("model", "identifier"),
    [("edgenext_small", "edgenext_small"), ("a/my-model v2.onnx", "my_model_v2"), ("8bit.pt2", "model_8bit")],
)
def test_the_identifier_is_valid_in_c(model: str, identifier: str) -> None:
    assert model_identifier(model) == identifier


def test_the_bundled_checkpoint_says_size_classes_and_preprocessing() -> None:
    source = load_float_model("edgenext_xx_small", None, None, None)
    assert source.is_bundled and source.origin.startswith("bundled ")
    assert (source.model.input_size, source.model.num_classes) == (128, 10)
    preprocessing = source.preprocessing
    assert (preprocessing.resize_size, preprocessing.crop_size) == (128, 128)
    assert preprocessing.class_names is not None and preprocessing.class_names[8] == "ship"


def test_another_input_size_is_cropped_to_that_size() -> None:
    source = load_float_model("edgenext_xx_small", None, None, 96)
    assert source.model.input_size == 96
    assert (source.preprocessing.resize_size, source.preprocessing.crop_size) == (96, 96)


def test_random_weights_follow_their_seed_and_take_the_published_shapes() -> None:
    first = load_float_model("edgenext_xx_small", "random:3", None, None)
    again = load_float_model("edgenext_xx_small", "random:3", None, None)
    other = load_float_model("edgenext_xx_small", "random", None, None)
    assert (first.model.num_classes, first.model.input_size) == (1000, 256)
    assert (first.preprocessing.resize_size, first.preprocessing.crop_size) == (284, 256)
    assert torch.equal(first.model.head.fc.weight, again.model.head.fc.weight)
    assert not torch.equal(first.model.head.fc.weight, other.model.head.fc.weight)


def test_a_variant_without_weights_proposes_a_checkpoint() -> None:
    with pytest.raises(UserError, match=r"no weights of edgenext_small .*--checkpoint FILE.*--checkpoint random"):
        load_float_model("edgenext_small", None, None, None)


def test_an_unknown_variant_lists_the_variants() -> None:
    with pytest.raises(UserError, match=r"unknown model 'edgenext_huge'; the variants are: edgenext_xx_small"):
        load_float_model("edgenext_huge", None, None, None)


def test_a_seed_that_is_no_number_is_an_error() -> None:
    for seed in ("x", "-1", "9" * 30):
        with pytest.raises(UserError, match=rf"'random:{seed}': the seed must be a number .*for example random:1"):
            load_float_model("edgenext_xx_small", f"random:{seed}", None, None)


def test_a_checkpoint_of_another_variant_is_an_error() -> None:
    with pytest.raises(UserError, match=r"holds the weights of edgenext_xx_small, but the model is edgenext_x_small"):
        load_float_model("edgenext_x_small", str(bundled_checkpoint("edgenext_xx_small")), None, None)
