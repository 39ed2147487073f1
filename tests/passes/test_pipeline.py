"""Lower: every variant of EdgeNeXt becomes exactly the integer kernels that its table of blocks says."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import tvm
from tvm import relax

from edgenext_tvm.frontend import import_program
from edgenext_tvm.kernels.base import kernel_of
from edgenext_tvm.model.checkpoint import bundled_checkpoint, load_model
from edgenext_tvm.model.config import VARIANTS, EdgeNeXtConfig
from edgenext_tvm.model.edgenext import EdgeNeXt, build_model
from edgenext_tvm.model.init_random import init_random
from edgenext_tvm.passes.fuse_inverted_bottlenecks import MIN_HIDDEN_BYTES
from edgenext_tvm.passes.pipeline import INTEGER_PASSES, LAYERS_ATTR, lower, pass_list_hash
from edgenext_tvm.passes.rewrite import bindings_of, op_name, shape_of
from edgenext_tvm.passes.strip_input_quantize import INPUT_ATTR
from edgenext_tvm.quantize import (
    Preprocessing,
    QuantizedProgram,
    Recipe,
    open_images,
    quantize_model,
    quantize_with_recipe,
)
from edgenext_tvm.verify.reference import run_reference

SIDE = 64
FREE = {"reshape"}
CALLS = {"call_tir", "call_tir_inplace"}


@dataclass(frozen=True)
class Lowered:
    model: EdgeNeXt
    program: QuantizedProgram
    mod: tvm.IRModule

    def twin_logits(self, x: np.ndarray) -> np.ndarray:
        """Logits of a float32 [1, 3, S, S] image, computed in integers by the kernels' twins."""
        params = json.loads(str(self.mod["main"].attrs[INPUT_ATTR]))
        levels = np.rint(x.transpose(0, 2, 3, 1) / np.float32(params["scale"])) + params["zero_point"]
        return run_reference(self.mod, np.clip(levels, -128, 127).astype(np.int8))

    def relative_error(self, x: np.ndarray) -> float:
        expected = self.program(torch.from_numpy(x)).numpy()
        return float(np.linalg.norm(self.twin_logits(x) - expected) / np.linalg.norm(expected))


SLOW = {"edgenext_base"}
PARAMS = [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in VARIANTS]


@pytest.fixture(scope="module", params=PARAMS)
def lowered(request: pytest.FixtureRequest) -> Lowered:
    model = init_random(build_model(request.param, num_classes=10, input_size=SIDE), seed=1)
    program = quantize_model(
        model, open_images("synthetic:2"), Preprocessing(resize_size=SIDE, crop_size=SIDE), quiet=True
    )
    return Lowered(model, program, lower(import_program(program.exported)))


def expected_kernels(config: EdgeNeXtConfig) -> Counter[str]:
    """Kernels per kind: ConvEncoder = depthwise, norm, 2 dense; SDTA = scales - 1 depthwise and scales - 2 sums, one
    copy, 2 norms, XCA between 2 dense, 2 dense; and stem, downsampling, position encoding, pool and head. The last
    2 dense of a block are one inverted bottleneck where the hidden tensor is large."""
    sdta = [stage for stage in range(4) if config.sdta_blocks[stage]]
    num_conv = sum(config.depths) - len(sdta)
    norms = config.norm == "layer_norm"
    tokens = [(SIDE // 4 >> stage) ** 2 for stage in range(4)]
    large = [tokens[i] * config.expansion * config.dims[i] >= MIN_HIDDEN_BYTES for i in range(4)]
    num_fused = sum(depth for depth, is_large in zip(config.depths, large, strict=True) if is_large)
    return Counter(
        {
            "conv2d": 4,
            "depthwise": num_conv + sum(config.scales[stage] - 1 for stage in sdta),
            "dense": 2 * num_conv + 4 * len(sdta) + 1 - 2 * num_fused,
            "inverted_bottleneck": num_fused,
            "layer_norm": 4 + num_conv + 2 * len(sdta) + 1 if norms else 0,
            "add": sum(config.scales[stage] - 2 for stage in sdta) + sum(config.position_encoding),
            "lut": len(sdta),
            "xca_scores": len(sdta),
            "xca_apply": len(sdta),
            "global_avg_pool": 1,
        }
    )


def test_the_kernels_are_those_of_the_table(lowered: Lowered) -> None:
    found = Counter(
        kernel_of(lowered.mod[value.args[0]]).kind for _, value in bindings_of(lowered.mod) if op_name(value) in CALLS
    )
    assert found == expected_kernels(lowered.model.config)


def test_residuals_and_activations_are_part_of_the_layers(lowered: Lowered) -> None:
    config = lowered.model.config
    epilogues = Counter(
        getattr(kernel_of(lowered.mod[value.args[0]]), "epilogue", "")
        for _, value in bindings_of(lowered.mod)
        if op_name(value) in CALLS
    )
    kernels = expected_kernels(config)
    assert epilogues["lut"] == sum(config.depths) - kernels["inverted_bottleneck"]
    assert epilogues["residual"] == sum(config.depths) + sum(config.sdta_blocks)


def test_only_kernels_and_free_views_are_left(lowered: Lowered) -> None:
    for var, value in bindings_of(lowered.mod):
        assert isinstance(value, relax.TupleGetItem | relax.Var) or op_name(value) in CALLS | FREE, value
        for tensor in var.ty.fields if isinstance(var.ty, relax.TupleType) else [var.ty]:
            assert all(isinstance(extent, tvm.tirx.IntImm) for extent in tensor.shape.values)


def test_nothing_but_int8_travels_between_kernels(lowered: Lowered) -> None:
    result = lowered.mod["main"].body.body
    (image,) = lowered.mod["main"].params
    assert (shape_of(image), str(image.ty.dtype)) == ((1, SIDE, SIDE, 3), "int8")
    for var, value in bindings_of(lowered.mod):
        if op_name(value) in CALLS:
            kernel = kernel_of(lowered.mod[value.args[0]])
            outputs = kernel.output_types()[: len(kernel.output_types()) - kernel.num_workspaces]
            assert [dtype for _, dtype in outputs] == ["float32" if var.same_as(result) else "int8"]
            reads = [arg for arg in value.args[1].fields if isinstance(arg, relax.Var)]
            assert {str(arg.ty.dtype) for arg in reads} == {"int8"}
    assert (shape_of(result), str(result.ty.dtype)) == ((1, 10), "float32")


def test_every_call_names_a_module_of_the_model(lowered: Lowered) -> None:
    layers = json.loads(str(lowered.mod["main"].attrs[LAYERS_ATTR]))
    modules = {name for name, _ in lowered.model.named_modules()}
    calls = [var.name for var, value in bindings_of(lowered.mod) if op_name(value) in CALLS]
    assert len(set(calls)) == len(calls)
    assert not [name for name in calls if layers.get(name, "") not in modules - {""}]


def test_the_twins_compute_what_the_program_computes(lowered: Lowered) -> None:
    x = np.random.default_rng(5).normal(size=(1, 3, SIDE, SIDE)).astype(np.float32)
    assert lowered.relative_error(x) <= 0.15


def test_the_bundled_network_keeps_its_logits(shared_data: Path) -> None:
    checkpoint = bundled_checkpoint("edgenext_xx_small")
    model = load_model(checkpoint).eval()
    recipe = Recipe.load(next(checkpoint.parent.glob("edgenext_xx_small_cifar10.recipe.json")))
    program = quantize_with_recipe(model, recipe)
    lowered = Lowered(model, program, lower(import_program(program.exported)))
    # on images unlike those it learned from the logits are small, and their relative error says little
    images = open_images(shared_data / "cifar10_test.npz", limit=4)
    for index in range(4):
        x = recipe.preprocessing(images.image(index))[None]
        assert x.shape == (1, 3, 128, 128)
        assert lowered.relative_error(x) <= 0.06


def test_a_program_that_is_not_quantized_takes_a_float_image(network, kinds) -> None:
    mod = lower(network(lambda g, x: g.emit(relax.op.nn.relu(x)), 4, 6, dtype="float32"))
    assert kinds(mod) == {"island": 1}
    assert INPUT_ATTR not in (mod["main"].attrs or {})


def test_the_hash_follows_the_pass_list() -> None:
    assert len(pass_list_hash()) == 16
    assert len({p.__name__ for p in INTEGER_PASSES}) == len(INTEGER_PASSES)
