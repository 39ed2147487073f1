from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import te, tirx
from tvm.s_tir import Schedule

from edgenext_tvm.kernels.run_host import host_target
from edgenext_tvm.schedules import schedule_kernel


def run(func: tirx.PrimFunc, *arrays: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    library = tvm.compile(func, target=host_target())
    y = tvm.runtime.tensor(np.zeros(shape, "float32"))
    library(*(tvm.runtime.tensor(array) for array in arrays), y)
    return y.numpy()


def block_names(func: tirx.PrimFunc) -> list[str]:
    sch = Schedule(tvm.IRModule({"main": func}))
    return [sch.get(block).name_hint for block in sch.get_child_blocks(sch.get_sblock("root"))]


@pytest.mark.parametrize("shape", [(1, 1), (3, 17), (64, 24)])
def test_elementwise_chain_becomes_one_parallel_loop(shape: tuple[int, int]) -> None:
    a, b = te.placeholder(shape, name="a"), te.placeholder(shape, name="b")
    total = te.compute(shape, lambda i, j: a[i, j] + b[i, j], name="total")
    out = te.compute(shape, lambda i, j: te.max(total[i, j], 0.0) * 2.0, name="out")
    func = schedule_kernel(te.create_prim_func([a, b, out]), "aarch64")
    assert block_names(func) == ["out"]
    assert func.body.block.body.kind == tirx.ForKind.PARALLEL
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=shape).astype("f4"), rng.normal(size=shape).astype("f4")
    np.testing.assert_array_equal(run(func, x, y, shape=shape), np.maximum(x + y, 0) * 2)


def test_reduction_keeps_its_order_and_stays_serial() -> None:
    a = te.placeholder((5, 17), name="a")
    k = te.reduce_axis((0, 17), name="k")
    row_sum = te.compute((5,), lambda i: te.sum(a[i, k], axis=k), name="row_sum")
    out = te.compute((5, 17), lambda i, j: a[i, j] - row_sum[i], name="out")
    func = schedule_kernel(te.create_prim_func([a, out]), "x86_64")
    assert block_names(func) == ["row_sum", "out"]
    x = np.random.default_rng(0).integers(-9, 9, (5, 17)).astype("f4")
    np.testing.assert_array_equal(run(func, x, shape=(5, 17)), x - x.sum(1, keepdims=True))


@pytest.mark.parametrize("isa", ["x86_64", "armv7"])
def test_products_sum_in_registers_and_call_functions_once_a_value(isa: str) -> None:
    x, w, v = (te.placeholder(shape, name=n) for n, shape in (("x", (10, 12)), ("w", (12, 24)), ("v", (24, 20))))
    k, h = te.reduce_axis((0, 12), name="k"), te.reduce_axis((0, 24), name="h")
    wide = te.compute((10, 24), lambda i, j: te.sum(x[i, k] * w[k, j], axis=k), name="wide")
    active = te.compute((10, 24), lambda i, j: tirx.exp(wide[i, j] * 0.125), name="active")
    narrow = te.compute((10, 20), lambda i, j: te.sum(active[i, h] * v[h, j], axis=h), name="narrow")
    func = schedule_kernel(te.create_prim_func([x, w, v, narrow]), isa)
    assert func.script().count("T.exp") == 1
    sch = Schedule(tvm.IRModule({"main": func}))
    assert len(sch.get_loops(sch.get_sblock("active"))) == 2
    for name in ("wide_update", "narrow_update"):
        *_, lane = sch.get_loops(sch.get_sblock(name))
        assert sch.get(lane).kind == tirx.ForKind.VECTORIZED
    if isa == "x86_64":
        rng = np.random.default_rng(0)
        values = [rng.normal(size=shape).astype("f4") for shape in ((10, 12), (12, 24), (24, 20))]
        expected = np.exp((values[0] @ values[1]) * 0.125) @ values[2]
        np.testing.assert_allclose(run(func, *values, shape=(10, 20)), expected, rtol=1e-5)
