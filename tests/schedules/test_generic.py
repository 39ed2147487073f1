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
