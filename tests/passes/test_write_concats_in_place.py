"""WriteConcatsInPlace: the kernels of a concatenation's parts write into one buffer."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax

from edgenext_tvm.passes.fold_slices import fold_slices
from edgenext_tvm.passes.fuse_adds import fuse_adds
from edgenext_tvm.passes.fuse_anchors import fuse_anchors
from edgenext_tvm.passes.fuse_lookups import fuse_lookups
from edgenext_tvm.passes.write_concats_in_place import write_concats_in_place

SCALE, ZERO = 0.05, 4


def depthwise(g, x, channels: int):
    """From and to one dtype with equal parameters, so that parts can be concatenated."""
    y = g.conv2d(g.dequantize(x, SCALE, ZERO), (3, 3, 1, channels), groups=channels, padding=(1, 1, 1, 1))
    return g.quantize(y, SCALE, ZERO, str(x.ty.dtype))


def split(g, x, sections):
    parts = g.emit(relax.op.split(x, sections, axis=-1))
    return [g.emit(relax.TupleGetItem(parts, i)) for i in range(len(parts.ty.fields))]


def lowered(before: tvm.IRModule) -> tvm.IRModule:
    return write_concats_in_place(fuse_adds(fuse_lookups(fuse_anchors(before))))


def test_the_first_part_makes_the_buffer_and_the_others_write_into_it(network, kinds, levels_apart) -> None:
    def body(g, x):
        return g.emit(relax.op.concat([depthwise(g, x, 6), depthwise(g, x, 6)], 3))

    before = network(body, 1, 4, 4, 6)
    after = lowered(before)
    assert kinds(after) == {"depthwise": 2}
    assert str(after).count("R.call_tir_inplace") == 1
    assert levels_apart(before, after) <= 1


def test_a_part_that_no_kernel_makes_is_copied(network, kinds, levels_apart) -> None:
    def body(g, x):
        return g.emit(relax.op.concat([depthwise(g, x, 6), x, depthwise(g, x, 6)], 3))

    before = network(body, 1, 4, 4, 6)
    after = lowered(before)
    assert kinds(after)["lut"] == 1
    assert kinds(after)["concat"] == 0
    assert levels_apart(before, after) <= 1


def test_a_table_writes_its_part_in_place(network, kinds, levels_apart) -> None:
    def body(g, x):
        table = g.quantize(g.emit(relax.op.nn.gelu(g.dequantize(x, 0.05, 3))), SCALE, ZERO)
        return g.emit(relax.op.concat([table, depthwise(g, x, 6)], 3))

    before = network(body, 1, 4, 4, 6)
    after = lowered(before)
    assert kinds(after) == {"reshape": 2, "lut": 1, "depthwise": 1}
    assert levels_apart(before, after) <= 1


@pytest.mark.parametrize(("dtype", "copy"), [("int8", "lut"), ("int16", "rescale")])
def test_a_cascade_reads_its_parts_back_out_of_the_buffer(network, kinds, levels_apart, dtype: str, copy: str) -> None:
    """SDTA's groups: each convolution also reads the result of the one before, which is a part of the buffer."""

    def body(g, x):
        a, b, c = split(g, x, [5, 10])
        first = depthwise(g, a, 5)
        total = g.emit(relax.op.add(g.dequantize(first, SCALE, ZERO), g.dequantize(b, SCALE, ZERO)))
        second = depthwise(g, g.quantize(total, SCALE, ZERO, dtype), 5)
        return g.emit(relax.op.concat([first, second, c], 3))

    before = network(body, 1, 4, 4, 14, dtype=dtype)
    after = fold_slices(lowered(before))
    assert {k: v for k, v in kinds(after).items() if k != "reshape"} == {"depthwise": 2, "add": 1, copy: 1}
    assert levels_apart(before, after) <= 1


def test_one_kernel_in_two_concatenations_is_copied_into_the_second(network, levels_apart) -> None:
    def body(g, x):
        part = depthwise(g, x, 6)
        left = g.emit(relax.op.concat([part, depthwise(g, x, 6)], 3))
        right = g.emit(relax.op.concat([part, depthwise(g, x, 6)], 3))
        return g.emit(relax.op.concat([left, right], 1))

    before = network(body, 1, 4, 4, 6)
    after = lowered(before)
    assert levels_apart(before, after) <= 1


def test_the_same_part_twice(network, levels_apart) -> None:
    def body(g, x):
        part = depthwise(g, x, 6)
        return g.emit(relax.op.concat([part, part], 3))

    before = network(body, 1, 4, 4, 6)
    assert levels_apart(before, lowered(before)) <= 1


def test_a_kernel_that_reads_the_buffer_before_the_last_part_is_written(network, run) -> None:
    """The copy of a part must not see channels that are written later."""

    def body(g, x):
        first = depthwise(g, x, 6)
        second = depthwise(g, first, 6)
        return g.emit(relax.op.concat([second, first], 3))

    before = network(body, 1, 4, 4, 6)
    after = fold_slices(lowered(before))
    x = np.random.default_rng(0).integers(-128, 128, (1, 4, 4, 6)).astype(np.int8)
    assert np.abs(run(before, x).astype(int) - run(after, x)).max() <= 2


def test_other_axes_and_float_tensors_are_left_alone(network) -> None:
    def body(g, x):
        rows = g.emit(relax.op.concat([x, x], 1))
        real = g.dequantize(rows, SCALE, ZERO)
        return g.emit(relax.op.concat([real, real], 3))

    before = network(body, 1, 4, 4, 6)
    tvm.ir.assert_structural_equal(write_concats_in_place(before), before)
