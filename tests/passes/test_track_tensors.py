"""Which quantize operator made each value: counted once, then carried along by every pass."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax

from edgenext_tvm.codegen.program import read_program
from edgenext_tvm.passes.fuse_anchors import fuse_anchors
from edgenext_tvm.passes.fuse_lookups import fuse_lookups
from edgenext_tvm.passes.pipeline import lower
from edgenext_tvm.passes.rewrite import Rewriter, bindings_of, op_name
from edgenext_tvm.passes.track_tensors import tensor_parameters, track_tensors, tracked


def dense_and_relu(g, x):
    """int8 [4,6] -> dense -> quantize 0 -> relu -> quantize 1."""
    dense = g.quantize(g.linear(g.dequantize(x, 0.05, 3), 6, 6), 0.1, -7)
    return g.quantize(g.emit(relax.op.nn.relu(g.dequantize(dense, 0.1, -7))), 0.04, -128)


def test_quantizers_are_counted_in_order_with_their_parameters(network) -> None:
    mod = track_tensors(network(dense_and_relu, 4, 6))
    names = [var.name for var, value in bindings_of(mod) if op_name(value) == "quantize"]
    assert tracked(mod) == {names[0]: [0], names[1]: [1]}
    assert tensor_parameters(mod) == [
        (pytest.approx(0.1, rel=1e-6), -7, "int8"),
        (pytest.approx(0.04, rel=1e-6), -128, "int8"),
    ]


def test_a_float_program_stays_as_it_is(network) -> None:
    mod = network(lambda g, x: g.emit(relax.op.nn.relu(x)), 4, 6, dtype="float32")
    assert track_tensors(mod).same_as(mod)
    assert tracked(mod) == {} and tensor_parameters(mod) == []


def test_without_the_attribute_passes_add_none(network) -> None:
    mod = fuse_anchors(network(dense_and_relu, 4, 6))
    assert "enx.tensors" not in (mod["main"].attrs or {})


def test_a_fusion_hands_the_number_to_the_kernel_and_forgets_what_is_gone(network) -> None:
    mod = fuse_anchors(track_tensors(network(dense_and_relu, 4, 6)))
    assert sorted(tracked(mod).values()) == [[0], [1]]
    mod = fuse_lookups(mod)
    (call,) = [var.name for var, value in bindings_of(mod) if op_name(value) == "call_tir"]
    assert tracked(mod) == {call: [1]}
    assert len(tensor_parameters(mod)) == 2


class Turn(Rewriter):
    """Puts data movement behind every ReLU's kernel, as rules for attention do."""

    def rewrite(self, value: relax.Expr, var: relax.Var) -> relax.Expr | None:
        if op_name(value) != "quantize":
            return None
        turned = self.emit(relax.op.permute_dims(self.emit(value), [1, 0]))
        return self.emit(relax.op.reshape(turned, relax.ShapeExpr([4, 6])))


def test_the_number_goes_to_what_was_moved(network) -> None:
    mod = Turn(track_tensors(network(lambda g, x: g.quantize(x, 0.1, 0), 4, 6, dtype="float32"))).run()
    (made,) = [var.name for var, value in bindings_of(mod) if op_name(value) == "quantize"]
    assert tracked(mod) == {made: [0]}


def test_an_input_that_enters_quantized_keeps_its_number(network) -> None:
    def body(g, x):
        return dense_and_relu(g, g.quantize(x, 0.05, 3))

    mod = lower(network(body, 4, 6, dtype="float32"))
    assert tracked(mod)["x"] == [0]


def test_a_part_written_in_place_and_the_whole_are_told_apart_by_their_writers(network) -> None:
    def body(g, x):
        # both parts and the result have one scale, as the quantizer gives concatenations
        parts = [
            g.quantize(g.conv2d(g.dequantize(x, 0.05, 3), (3, 3, 1, 8), groups=8, padding=[1, 1]), 0.1, 0)
            for _ in range(2)
        ]
        both = g.emit(relax.op.concat([g.dequantize(part, 0.1, 0) for part in parts], 3))
        return g.quantize(both, 0.1, 0)

    mod = lower(network(body, 1, 6, 6, 8))
    writers = [step.name for step in read_program(mod).steps if step.kind == "depthwise"]
    numbers = [tracked(mod).get(name) for name in writers]
    assert numbers == [[0], [1, 2]]


def test_lowered_code_is_the_same_with_and_without(network, monkeypatch: pytest.MonkeyPatch) -> None:
    mod = network(dense_and_relu, 4, 6)
    with_numbers = lower(mod)
    monkeypatch.setattr("edgenext_tvm.passes.pipeline.track_tensors", lambda mod: mod)
    without = lower(mod)
    assert tracked(with_numbers) and not tracked(without)
    bare = with_numbers["main"].without_attr("enx.tensors")
    tvm.ir.assert_structural_equal(
        tvm.IRModule({**{gv: f for gv, f in with_numbers.functions.items() if gv.name_hint != "main"}, "main": bare}),
        without,
    )
    assert np.array_equal(read_program(with_numbers).constants[0], read_program(without).constants[0])
