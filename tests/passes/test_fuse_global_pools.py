"""FuseGlobalPools: the mean over all pixels is one integer kernel."""

from __future__ import annotations

import pytest
import tvm
from tvm import relax

from edgenext_tvm.passes.fuse_global_pools import fuse_global_pools


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axes", [[1, 2], [-2, -3]])
def test_a_mean_over_pixels_is_one_kernel(network, kinds, levels_apart, axes: list[int], keepdims: bool) -> None:
    def body(g, x):
        return g.quantize(g.emit(relax.op.mean(g.dequantize(x, 0.03, 11), axes, keepdims)), 0.002, -3)

    before = network(body, 1, 4, 6, 16)
    after = fuse_global_pools(before)
    assert kinds(after) == {"global_avg_pool": 1} | ({"reshape": 1} if keepdims else {})
    assert levels_apart(before, after) <= 1


@pytest.mark.parametrize(("x_dtype", "out_dtype"), [("int8", "int16"), ("int16", "int8"), ("int16", "int16")])
def test_a_mean_of_or_to_a_wide_tensor_is_one_kernel(network, kinds, levels_apart, x_dtype, out_dtype) -> None:
    s_in, s_out = (0.03 / 16 if x_dtype == "int16" else 0.03), (0.01 / 16 if out_dtype == "int16" else 0.01)

    def body(g, x):
        return g.quantize(g.emit(relax.op.mean(g.dequantize(x, s_in, 11), [1, 2])), s_out, -3, out_dtype)

    before = network(body, 1, 4, 6, 16, dtype=x_dtype)
    after = fuse_global_pools(before)
    assert kinds(after) == {"global_avg_pool": 1}
    assert levels_apart(before, after) <= 1


@pytest.mark.parametrize("axes", [[1], [3], [1, 3], [0, 1, 2]])
def test_means_over_other_axes_are_left_alone(network, axes: list[int]) -> None:
    def body(g, x):
        return g.quantize(g.emit(relax.op.mean(g.dequantize(x, 0.03, 11), axes)), 0.002, -3)

    before = network(body, 1, 4, 6, 16)
    tvm.ir.assert_structural_equal(fuse_global_pools(before), before)
