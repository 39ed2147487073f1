"""FoldSlices: a slice of channels is an offset in its reader, or one copy."""

from __future__ import annotations

import json

import pytest
import tvm
from tvm import relax

from edgenext_tvm.passes.fold_slices import fold_slices
from edgenext_tvm.passes.fuse_adds import fuse_adds
from edgenext_tvm.passes.fuse_anchors import fuse_anchors
from edgenext_tvm.passes.fuse_lookups import fuse_lookups


def part(g, x, how: str):
    """Channels [5, 10) of the last axis of 14."""
    if how == "split":
        return g.emit(relax.TupleGetItem(g.emit(relax.op.split(x, [5, 10], axis=-1)), 1))
    return g.emit(relax.op.strided_slice(x, [len(x.ty.shape.values) - 1], [5], [10]))


def descriptions(mod: tvm.IRModule) -> list[dict]:
    return [json.loads(str(f.attrs["enx.kernel"])) for gv, f in mod.functions.items() if gv.name_hint != "main"]


@pytest.mark.parametrize("how", ["split", "slice"])
def test_a_depthwise_convolution_reads_at_an_offset(network, kinds, levels_apart, how: str) -> None:
    def body(g, x):
        y = g.conv2d(g.dequantize(part(g, x, how), 0.05, 3), (3, 3, 1, 5), groups=5, padding=(1, 1, 1, 1))
        return g.quantize(y, 0.05, 0)

    before = network(body, 1, 4, 4, 14)
    after = fold_slices(fuse_anchors(before))
    assert kinds(after) == {"depthwise": 1}
    (kernel,) = descriptions(after)
    assert (kernel["c"], kernel["x_channels"], kernel["x_offset"]) == (5, 14, 5)
    assert levels_apart(before, after) <= 1


@pytest.mark.parametrize("how", ["split", "slice"])
def test_a_table_reads_at_an_offset(network, kinds, levels_apart, how: str) -> None:
    before = network(lambda g, x: g.quantize(g.dequantize(part(g, x, how), 0.05, 3), 0.04, 0), 30, 14)
    after = fold_slices(fuse_lookups(before))
    assert kinds(after) == {"lut": 1}
    assert levels_apart(before, after) == 0


def test_a_sum_reads_both_sides_at_offsets(network, kinds, levels_apart) -> None:
    def body(g, x):
        left = g.emit(relax.op.strided_slice(x, [1], [0], [5]))
        return g.quantize(
            g.emit(relax.op.add(g.dequantize(left, 0.05, 3), g.dequantize(part(g, x, "slice"), 0.05, 3))), 0.08, 0
        )

    before = network(body, 30, 14)
    after = fold_slices(fuse_adds(before))
    assert kinds(after) == {"add": 1}
    (kernel,) = descriptions(after)
    assert (kernel["a_channels"], kernel["a_offset"], kernel["b_channels"], kernel["b_offset"]) == (14, 0, 14, 5)
    assert levels_apart(before, after) <= 1


def test_a_slice_read_by_a_dense_kernel_is_copied(network, kinds, levels_apart) -> None:
    def body(g, x):
        return g.quantize(g.linear(g.dequantize(part(g, x, "split"), 0.05, 3), 5, 8), 0.03, 0)

    before = network(body, 30, 14)
    after = fold_slices(fuse_anchors(before))
    assert kinds(after) == {"lut": 1, "dense": 1}
    assert levels_apart(before, after) <= 1


def test_a_slice_is_seen_through_reshapes_that_keep_its_channels(network, kinds, levels_apart) -> None:
    def body(g, x):
        rows = g.emit(relax.op.reshape(part(g, x, "slice"), [16, 5]))
        return g.quantize(g.dequantize(rows, 0.05, 3), 0.04, 0)

    before = network(body, 1, 4, 4, 14)
    after = fold_slices(fuse_lookups(before))
    assert kinds(after) == {"reshape": 1, "lut": 1}
    assert levels_apart(before, after) == 0


def test_a_slice_of_other_axes_and_with_steps_is_left_alone(network) -> None:
    def body(g, x):
        rows = g.emit(relax.op.strided_slice(x, [0], [3], [9]))
        steps = g.emit(relax.op.strided_slice(rows, [1], [0], [14], [2]))
        return g.quantize(g.dequantize(steps, 0.05, 3), 0.04, 0)

    before = fuse_lookups(network(body, 30, 14))
    tvm.ir.assert_structural_equal(fold_slices(before), before)
