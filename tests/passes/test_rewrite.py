"""Rewriter: the walk keeps what no rule changes, shares functions, names layers and counts stored readers."""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax

from edgenext_tvm.kernels.lut import Lut
from edgenext_tvm.passes.rewrite import Rewriter, bindings_of, layer_of, op_name, remove_dead_code, with_layer


class Unchanged(Rewriter):
    def rewrite(self, value, var):
        return None


class ReluToTable(Rewriter):
    """A rule that puts a kernel in place of every ReLU, whatever it computes."""

    def rewrite(self, value, var):
        if op_name(value) != "nn.relu":
            return None
        return self.call_kernel(Lut(t=4, c=6), [value.args[0], np.zeros(256, np.int8)])


def two_relus(g, x):
    first = g.emit(with_layer(relax.op.nn.relu(x), "block.act"))
    return g.emit(relax.op.nn.relu(first))


def test_a_walk_without_rules_changes_nothing(network) -> None:
    before = network(two_relus, 4, 6)
    tvm.ir.assert_structural_equal(Unchanged(before).run(), before)


def test_equal_kernels_share_one_function(network) -> None:
    after = ReluToTable(network(two_relus, 4, 6)).run()
    assert [gv.name_hint for gv in after.functions if gv.name_hint != "main"] == ["lut_4x6"]
    assert [op_name(value) for _, value in bindings_of(after)] == ["call_tir", "call_tir"]


def test_calls_without_a_layer_of_their_own_belong_to_the_layer_before(network) -> None:
    after = ReluToTable(network(two_relus, 4, 6)).run()
    assert [layer_of(value) for _, value in bindings_of(after)] == ["block.act", "block.act"]


def test_readers_are_counted_through_float_values(network) -> None:
    def body(g, x):
        y = g.emit(relax.op.nn.relu(x))
        real = g.dequantize(y, 0.5, 3)
        gate = g.emit(relax.op.sigmoid(real))
        return g.quantize(g.emit(relax.op.multiply(real, gate)), 0.5, 3)

    def two(g, x):
        y = g.emit(relax.op.nn.relu(x))
        return g.emit(relax.op.add(y, body(g, y)))

    counts = []

    class Probe(Rewriter):
        def rewrite(self, value, var):
            if op_name(value) == "dequantize":
                counts.append(self.reader_count(value.args[0]))

    Probe(network(body, 4, 6)).run()
    Probe(network(two, 4, 6)).run()
    assert counts == [1, 1]

    class First(Rewriter):
        def rewrite(self, value, var):
            if op_name(value) == "nn.relu" and value.args[0] in self.value:
                counts.append(self.reader_count(value.args[0]))

    First(network(two, 4, 6)).run()
    assert counts[2:] == [2]


def test_the_result_of_main_is_a_reader(network) -> None:
    counts = []

    class Probe(Rewriter):
        def rewrite(self, value, var):
            return None

        def finish(self, result):
            counts.append(self.reader_count(result))
            return result

    Probe(network(two_relus, 4, 6)).run()
    assert counts == [1]


def test_functions_that_nobody_calls_are_removed(network) -> None:
    after = ReluToTable(network(two_relus, 4, 6)).run()
    stale = tvm.IRModule({**dict(after.functions.items()), tvm.ir.GlobalVar("stale"): Lut(t=1, c=1).prim_func("stale")})
    assert sorted(gv.name_hint for gv in remove_dead_code(stale).functions) == ["lut_4x6", "main"]
