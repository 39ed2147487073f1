"""Variants, input sizes and class counts outside of what EdgeNeXt allows are refused with what to try."""

from __future__ import annotations

import dataclasses

import pytest

from edgenext_tvm.errors import UserError
from edgenext_tvm.model.config import VARIANTS, check_input_size, check_num_classes, get_config


def test_the_seven_variants() -> None:
    assert list(VARIANTS) == [
        "edgenext_xx_small",
        "edgenext_x_small",
        "edgenext_small",
        "edgenext_base",
        "edgenext_xx_small_bn_hs",
        "edgenext_x_small_bn_hs",
        "edgenext_small_bn_hs",
    ]
    assert all(get_config(name).name == name for name in VARIANTS)


@pytest.mark.parametrize("name", [name for name in VARIANTS if name.endswith("bn_hs")])
def test_bn_hs_differs_from_its_base_in_norm_and_activation_only(name: str) -> None:
    config, base = get_config(name), get_config(name.removesuffix("_bn_hs"))
    assert (config.norm, config.activation) == ("batch_norm", "hardswish")
    assert dataclasses.replace(config, name=base.name, norm=base.norm, activation=base.activation) == base


@pytest.mark.parametrize("name", VARIANTS)
def test_heads_divide_the_channels_of_every_sdta_block(name: str) -> None:
    config = get_config(name)
    pairs = zip(config.dims, config.heads, config.sdta_blocks, strict=True)
    assert all(dim % heads == 0 for dim, heads, blocks in pairs if blocks)


def test_configs_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        get_config("edgenext_small").name = "other"  # type: ignore[misc]


def test_unknown_names_list_the_variants() -> None:
    with pytest.raises(UserError, match=r"unknown model 'edgenext'; the variants are: edgenext_xx.*bn_hs"):
        get_config("edgenext")


@pytest.mark.parametrize(
    ("size", "hint"), [(0, "try 64"), (32, "try 64"), (-64, "try 64"), (65, "64 or 96"), (250, "224 or 256")]
)
def test_impossible_input_sizes_name_the_nearest(size: int, hint: str) -> None:
    with pytest.raises(UserError, match=rf"input size {size} is not possible: .*multiple of 32 .*{hint}"):
        check_input_size(size)


def test_an_input_size_beyond_the_sums_range() -> None:
    with pytest.raises(UserError, match=r"input size 1000000000 is not possible: it must be at most 2048"):
        check_input_size(1_000_000_000)


@pytest.mark.parametrize("size", [256.0, "256", None, True])
def test_input_sizes_of_other_types(size: object) -> None:
    with pytest.raises(UserError, match=r"is not an integer: give one side in pixels"):
        check_input_size(size)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [64, 96, 256, 288, 320, 2048])
def test_possible_input_sizes(size: int) -> None:
    assert check_input_size(size) == size


@pytest.mark.parametrize("classes", [0, -1, 2.5, "10", False, 10**12])
def test_impossible_class_counts(classes: object) -> None:
    with pytest.raises(UserError, match=r"number of classes .* is not possible: give an integer"):
        check_num_classes(classes)  # type: ignore[arg-type]
