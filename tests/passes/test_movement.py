"""ElementIndices: data movement evaluated on element indices equals data movement."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax

from edgenext_tvm.passes.movement import element_indices
from edgenext_tvm.passes.rewrite import Rewriter


def reshaped(g, x):
    return g.emit(relax.op.reshape(x, [4, 3, 2]))


def permuted(g, x):
    return g.emit(relax.op.permute_dims(reshaped(g, x), [2, 0, 1]))


def transposed(g, x):
    return g.emit(relax.op.permute_dims(x))


def sliced(g, x):
    return g.emit(relax.op.strided_slice(permuted(g, x), [1, -1], [1, 0], [4, 2]))


def part_of_split(g, x):
    return g.emit(relax.TupleGetItem(g.emit(relax.op.split(x, [1, 4], axis=1)), 1))


def half(g, x):
    return g.emit(relax.TupleGetItem(g.emit(relax.op.split(x, 2, axis=1)), 1))


def broadcast(g, x):
    return g.emit(relax.op.broadcast_to(g.emit(relax.op.expand_dims(x, 0)), [2, 4, 6]))


def dequantized(g, x):
    return g.emit(relax.op.squeeze(g.emit(relax.op.reshape(g.dequantize(x, 1.0, 0), [1, 4, 6])), [0]))


@pytest.mark.parametrize("body", [reshaped, permuted, transposed, sliced, part_of_split, half, broadcast, dequantized])
def test_indices_find_every_element(network, run, body) -> None:
    mod = network(body, 4, 6)
    found = {}

    class Probe(Rewriter):
        def rewrite(self, value, var):
            return None

        def finish(self, result):
            found["source"], found["indices"] = element_indices(self, result)
            found["input"] = self.env[self.mod["main"].params[0]]
            return result

    Probe(mod).run()
    x = np.arange(24, dtype=np.int8).reshape(4, 6)
    assert found["source"].same_as(found["input"])
    np.testing.assert_array_equal(x.reshape(-1)[found["indices"]], run(mod, x))


def test_a_computed_tensor_is_its_own_source(network) -> None:
    mod = network(lambda g, x: g.emit(relax.op.nn.relu(x)), 4, 6)

    class Probe(Rewriter):
        def rewrite(self, value, var):
            return None

        def finish(self, result):
            source, indices = element_indices(self, result)
            assert source.same_as(result)
            np.testing.assert_array_equal(indices, np.arange(24).reshape(4, 6))
            return result

    tvm.ir.assert_structural_equal(Probe(mod).run(), mod)
