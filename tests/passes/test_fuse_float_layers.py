"""FuseFloatLayers: a float32 program is one generated kernel per layer, and computes what torch computes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import tvm
from tvm import relax

from edgenext_tvm.frontend import import_program
from edgenext_tvm.model.edgenext import build_model
from edgenext_tvm.model.fold import fold_for_quantization
from edgenext_tvm.model.init_random import init_random
from edgenext_tvm.passes.fuse_float_layers import fuse_float_layers
from edgenext_tvm.passes.pipeline import LAYERS_ATTR, lower_float
from edgenext_tvm.passes.rewrite import bindings_of, op_name


def test_bias_and_activation_join_their_product(network, kinds, run) -> None:
    def body(g, x):
        hidden = g.emit(relax.op.add(g.emit(relax.op.matmul(x, g.constant((8, 16)))), g.constant((16,))))
        hidden = g.emit(relax.op.nn.gelu(hidden))
        y = g.emit(relax.op.add(g.emit(relax.op.matmul(hidden, g.constant((16, 8)))), g.constant((8,))))
        return g.emit(relax.op.add(x, y))

    before = network(body, 6, 8, dtype="float32")
    after = fuse_float_layers(before)
    assert kinds(after) == {"island": 2}
    x = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)
    np.testing.assert_allclose(run(after, x), run(before, x), rtol=1e-4, atol=1e-4)


def test_a_reshape_of_a_stored_tensor_is_free(network, kinds) -> None:
    def body(g, x):
        y = g.emit(relax.op.matmul(g.emit(relax.op.reshape(x, [6, 8])), g.constant((8, 8))))
        return g.emit(relax.op.nn.softmax(g.emit(relax.op.reshape(y, [2, 24]))))

    assert kinds(fuse_float_layers(network(body, 1, 6, 8, dtype="float32")))["island"] == 2


def test_split_and_concat(network, kinds, run) -> None:
    def body(g, x):
        parts = g.emit(relax.op.split(x, 2, axis=1))
        a, b = (g.emit(relax.TupleGetItem(parts, i)) for i in range(2))
        return g.emit(relax.op.concat([g.emit(relax.op.add(a, b)), b], 1))

    before = network(body, 6, 8, dtype="float32")
    after = fuse_float_layers(before)
    assert set(kinds(after)) == {"island"}
    x = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)
    np.testing.assert_allclose(run(after, x), run(before, x), rtol=1e-6)


@pytest.fixture(scope="module")
def float_model() -> torch.nn.Module:
    model = init_random(build_model("edgenext_xx_small", num_classes=10, input_size=64), seed=1)
    return fold_for_quantization(model)


@pytest.fixture(scope="module")
def lowered(float_model: torch.nn.Module) -> tvm.IRModule:
    return lower_float(import_program(torch.export.export(float_model, (torch.zeros(1, 3, 64, 64),))))


def test_only_named_calls_are_left(float_model: torch.nn.Module, lowered: tvm.IRModule) -> None:
    layers = json.loads(str(lowered["main"].attrs[LAYERS_ATTR]))
    modules = {name for name, _ in float_model.named_modules()}
    calls = [var.name for var, value in bindings_of(lowered) if op_name(value) == "call_tir"]
    assert {op_name(value) for _, value in bindings_of(lowered)} <= {"call_tir", "reshape"}
    assert {layers[name] for name in calls} <= modules


def test_the_logits_are_those_of_torch(float_model: torch.nn.Module, lowered: tvm.IRModule) -> None:
    machine = relax.VirtualMachine(relax.build(lowered, "llvm"), tvm.cpu())
    x = np.random.default_rng(2).normal(size=(1, 3, 64, 64)).astype(np.float32)
    with torch.no_grad():
        expected = float_model(torch.from_numpy(x)).numpy()
    image = tvm.runtime.tensor(np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
    np.testing.assert_allclose(machine["main"](image).numpy(), expected, rtol=1e-4, atol=1e-4)
