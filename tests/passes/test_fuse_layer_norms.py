"""FuseLayerNorms: normalisation over the last axis of an int8 tensor is one integer kernel."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax

from edgenext_tvm.kernels.base import kernel_of
from edgenext_tvm.passes.fuse_layer_norms import fuse_layer_norms


def norm(g, x, gamma, beta, axes=(-1,)):
    return g.emit(relax.op.nn.layer_norm(x, relax.const(gamma), relax.const(beta), list(axes), 1e-6))


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("shape", [(6, 24), (1, 4, 4, 24)])
def test_a_layer_norm_is_one_kernel(network, kinds, levels_apart, affine: bool, shape) -> None:
    rng = np.random.default_rng(0)
    gamma = rng.uniform(0.5, 1.5, 24).astype(np.float32) if affine else np.ones(24, np.float32)
    beta = rng.normal(0, 1, 24).astype(np.float32) if affine else np.zeros(24, np.float32)
    before = network(lambda g, x: g.quantize(norm(g, g.dequantize(x, 0.03, -20), gamma, beta), 0.03, 5), *shape)
    after = fuse_layer_norms(before)
    assert kinds(after) == {"layer_norm": 1} | ({"reshape": 2} if len(shape) == 4 else {})
    (func,) = [f for gv, f in after.functions.items() if gv.name_hint != "main"]
    assert f'"affine": {str(affine).lower()}' in str(func.attrs["enx.kernel"])
    assert levels_apart(before, after) <= 1


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("out_dtype", ["int8", "int16"])
def test_a_layer_norm_of_a_wide_tensor_is_one_kernel(network, kinds, levels_apart, affine: bool, out_dtype) -> None:
    rng = np.random.default_rng(0)
    gamma = rng.uniform(0.5, 1.5, 24).astype(np.float32) if affine else np.ones(24, np.float32)
    beta = rng.normal(0, 1, 24).astype(np.float32) if affine else np.zeros(24, np.float32)
    scale = 0.03 if out_dtype == "int8" else 0.03 / 16

    def body(g, x):
        return g.quantize(norm(g, g.dequantize(x, 0.03 / 16, -20), gamma, beta), scale, 5, out_dtype)

    before = network(body, 6, 24, dtype="int16")
    after = fuse_layer_norms(before)
    assert kinds(after) == {"layer_norm": 1}
    (kernel,) = [kernel_of(f) for gv, f in after.functions.items() if gv.name_hint != "main"]
    assert (kernel.x_dtype, kernel.out_dtype, kernel.affine) == ("int16", out_dtype, affine)
    assert levels_apart(before, after) <= 1


def first_axis(g, x):
    return g.quantize(
        norm(g, g.dequantize(x, 0.03, 0), np.ones(8, np.float32), np.zeros(8, np.float32), (-2,)), 0.03, 5
    )


def both_axes(g, x):
    ones, zeros = np.ones((8, 8), np.float32), np.zeros((8, 8), np.float32)
    return g.quantize(norm(g, g.dequantize(x, 0.03, 0), ones, zeros, (-2, -1)), 0.03, 5)


@pytest.mark.parametrize("body", [first_axis, both_axes])
def test_other_axes_are_left_alone(network, body) -> None:
    before = network(body, 8, 8)
    tvm.ir.assert_structural_equal(fuse_layer_norms(before), before)
