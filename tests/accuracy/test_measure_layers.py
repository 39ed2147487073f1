"""Noise by tensor: every stored tensor is found, held against its own float tensor, and a bad one is named."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable

import pytest

from edgenext_tvm.accuracy.measure_layers import LOGITS, TOP_LEVEL, LayerNoise, measure_layers
from edgenext_tvm.accuracy.open_model import MeasuredModel
from edgenext_tvm.errors import UserError
from edgenext_tvm.passes.track_tensors import TENSORS_ATTR
from edgenext_tvm.quantize import Recipe, open_images

SPOILED = "mlp.act:gelu"


@pytest.fixture(scope="module")
def noise(small: MeasuredModel) -> LayerNoise:
    return measure_layers(small, open_images("synthetic:6"))


@pytest.fixture(scope="module")
def bundled_noise(bundled: MeasuredModel) -> LayerNoise:
    return measure_layers(bundled, open_images("synthetic:2"))


def test_tensors_come_in_network_order_with_their_module_and_kernel(noise: LayerNoise) -> None:
    assert [(t.key, t.layer, t.kernel, t.dtype) for t in noise.tensors] == [
        ("input", "input", "preprocessing", "int8"),
        ("stem:conv2d", "stem", "conv2d", "int8"),
        ("conv:conv2d", "conv", "depthwise", "int8"),
        ("mlp.act:gelu", "mlp.act", "dense", "int8"),
        (":add", TOP_LEVEL, "dense", "int8"),
        (":mean", TOP_LEVEL, "global_avg_pool", "int16"),
        (LOGITS, "fc", "dense", "float32"),
    ]
    assert noise.not_stored == ("mlp.fc1:linear",)
    assert (noise.images, noise.runner) == (6, "host")


def test_each_tensor_is_read_with_the_recipes_parameters(noise: LayerNoise, small_recipe: Recipe) -> None:
    for tensor in noise.tensors[:-1]:
        params = small_recipe.activations[tensor.key]
        assert (tensor.scale, tensor.zero_point, tensor.dtype) == params.quantization


def test_noise_is_small_everywhere_and_never_below_a_tensors_own(noise: LayerNoise) -> None:
    assert all(tensor.sqnr_db > 25 for tensor in noise.tensors)
    # what is inherited adds to what rounding does; 1 dB for noises that cancel by chance
    assert all(tensor.sqnr_db < tensor.own_db + 1 for tensor in noise.tensors[:-1])
    mean = next(t for t in noise.tensors if t.key == ":mean")
    assert mean.own_db > max(t.own_db for t in noise.tensors if t.dtype == "int8") + 12


def test_a_spoiled_scale_is_named_as_the_worst_layer(
    compile_small: Callable[[Recipe], MeasuredModel], small_recipe: Recipe, noise: LayerNoise
) -> None:
    good = small_recipe.activations[SPOILED]
    spoiled = good.model_copy(update={"scale": good.scale * 32, "zero_point": round(good.zero_point / 32)})
    recipe = small_recipe.model_copy(update={"activations": {**small_recipe.activations, SPOILED: spoiled}})
    found = measure_layers(compile_small(recipe), open_images("synthetic:6"))
    assert found.worst_first[0].key == SPOILED
    assert min(found.layers, key=lambda layer: found.layers[layer]) == "mlp.act"
    assert min(found.tensors, key=lambda tensor: tensor.own_db).key == SPOILED
    # what comes before is as it was
    assert [t.sqnr_db for t in found.tensors[:3]] == pytest.approx([t.sqnr_db for t in noise.tensors[:3]])
    assert found.worst_first[0].sqnr_db < noise.worst_first[0].sqnr_db - 10


def test_a_range_that_is_too_small_shows_as_clipping(
    compile_small: Callable[[Recipe], MeasuredModel], small_recipe: Recipe, noise: LayerNoise
) -> None:
    good = small_recipe.activations["conv:conv2d"]
    recipe = small_recipe.model_copy(
        update={
            "activations": {
                **small_recipe.activations,
                "conv:conv2d": good.model_copy(update={"scale": good.scale / 4}),
            }
        }
    )
    found = {t.key: t for t in measure_layers(compile_small(recipe), open_images("synthetic:6")).tensors}
    before = {t.key: t for t in noise.tensors}
    assert before["conv:conv2d"].clipped < 0.02 < 0.1 < found["conv:conv2d"].clipped
    assert found["stem:conv2d"].clipped == before["stem:conv2d"].clipped


def test_every_tensor_of_the_bundled_models_recipe_is_stored_or_named_as_not_stored(
    bundled: MeasuredModel, bundled_noise: LayerNoise
) -> None:
    stored = [tensor.key for tensor in bundled_noise.tensors]
    assert len(set(stored)) == len(stored) and stored[-1] == LOGITS
    constants = {key for key in bundled.quantized().activations if ".in" in key} - set(stored)
    assert {*stored[:-1], *bundled_noise.not_stored} == set(bundled.quantized().activations) - constants
    # the only constant that is added: the position encoding
    assert len(constants) == 1
    # a table is part of the layer before it: what that layer made is never whole
    assert all(key.endswith("fc1:linear") for key in bundled_noise.not_stored)


def test_no_tensor_of_the_bundled_model_is_held_against_a_wrong_one(bundled_noise: LayerNoise) -> None:
    # a tensor against another, or in another layout, has about 0 dB
    assert min(tensor.sqnr_db for tensor in bundled_noise.tensors) > 8


def test_the_layers_value_is_that_of_its_worst_tensor(bundled_noise: LayerNoise) -> None:
    layer = "stages.3.blocks.1"
    assert bundled_noise.layers[layer] == min(t.sqnr_db for t in bundled_noise.tensors if t.layer == layer)
    assert list(bundled_noise.layers)[:3] == ["input", "stem.0", "stem.1"]


def test_as_json_infinity_is_null(noise: LayerNoise) -> None:
    values = json.loads(json.dumps(noise.to_dict(), allow_nan=False))
    assert values["tensors"][-1]["key"] == LOGITS and values["tensors"][-1]["own_db"] is None
    assert values["layers"]["mlp.act"] == pytest.approx(noise.layers["mlp.act"])
    assert math.isfinite(values["tensors"][0]["sqnr_db"])


def test_a_recipe_of_another_build_is_refused(small: MeasuredModel, small_recipe: Recipe) -> None:
    mean = small_recipe.activations[":mean"]
    activations = {**small_recipe.activations, ":mean": mean.model_copy(update={"scale": mean.scale * 2})}
    other = dataclasses.replace(small, recipe=small_recipe.model_copy(update={"activations": activations}))
    with pytest.raises(UserError, match="its recipe is not the one it was built with"):
        measure_layers(other, open_images("synthetic:1"))


def test_a_build_without_the_names_is_refused(small: MeasuredModel) -> None:
    old = dataclasses.replace(small)
    main = small.lowered["main"].without_attr(TENSORS_ATTR)
    others = {gv: func for gv, func in small.lowered.functions.items() if gv.name_hint != "main"}
    old.__dict__["lowered"] = type(small.lowered)({**others, "main": main})
    with pytest.raises(UserError, match="was compiled by an older version"):
        measure_layers(old, open_images("synthetic:1"))


def test_float32_builds_have_nothing_to_show(small: MeasuredModel) -> None:
    with pytest.raises(UserError, match="--precision float32: nothing in it is quantized"):
        measure_layers(dataclasses.replace(small, recipe=None), open_images("synthetic:1"))
