from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import tvm

from edgenext_tvm.kernels import requantize as rq
from edgenext_tvm.kernels.run_host import host_target

ACC = np.array([0, 1, -1, 2, 3, 5, -3, -5, 127, 128, -129, 255, 2**24 + 1, -(2**24) - 1, 2**31 - 1, -(2**31)], np.int32)


def exact(acc: int, multiplier: np.float32, zero_point: int) -> int:
    """Round the float32 product, taken exactly from there on, half to even."""
    product = np.float32(acc) * multiplier
    rounded = round(Fraction(float(product)))
    return max(-128, min(127, rounded + zero_point))


@pytest.mark.parametrize("zero_point", [-128, -1, 0, 7, 127])
@pytest.mark.parametrize("multiplier", [0.5, 0.25, 1.0, 1.5, 1e-9, 0.0078125, 3.0, 0.1])
def test_requant_rounds_half_to_even_and_saturates(multiplier: float, zero_point: int) -> None:
    m = np.float32(multiplier)
    expected = [exact(int(acc), m, zero_point) for acc in ACC]
    assert rq.requant(ACC, m, zero_point).tolist() == expected


@pytest.mark.parametrize("zero_point", [-2048, 0, 2047])
def test_requant_to_a_wide_tensor_saturates_at_12_bits(zero_point: int) -> None:
    q = rq.requant(np.array([-5000, -3, 3, 5000], np.int32), np.float32(1.5), zero_point, "int16")
    assert q.dtype == np.int16
    assert q.tolist() == [max(-2048, min(2047, value + zero_point)) for value in (-7500, -4, 4, 7500)]


def test_exact_halves_go_to_the_even_neighbour() -> None:
    acc = np.array([1, 3, 5, -1, -3, -5], np.int32)
    assert rq.requant(acc, np.float32(0.5), 0).tolist() == [0, 2, 2, 0, -2, -2]
    assert rq.requant(acc, np.float32(0.5), 1).tolist() == [1, 3, 3, 1, -1, -1]


def test_fixed_saturates_at_two_to_the_21() -> None:
    assert rq.fixed(ACC, np.float32(1.0)).tolist()[-4:] == [2**21, -(2**21), 2**21, -(2**21)]
    assert rq.fixed(np.array([5], np.int32), np.float32(0.5)).tolist() == [2]


def test_table_entry_zero_belongs_to_minus_128() -> None:
    table = np.arange(256).astype(np.int8)
    assert rq.lut(table, np.array([-128, 0, 127], np.int8)).tolist() == [table[0], table[128], table[255]]


@pytest.mark.parametrize("builder", ["requant", "fixed"])
def test_expressions_give_the_twins_bits(builder: str) -> None:
    from tvm import te

    rng = np.random.default_rng(0)
    acc = np.concatenate([ACC, rng.integers(-(2**31), 2**31, 1008).astype(np.int32), np.arange(-512, 512, dtype="i4")])
    mult = np.concatenate([np.full(1024, 0.5), rng.uniform(0, 0.01, 1024)]).astype(np.float32)
    a, m = te.placeholder(acc.shape, "int32"), te.placeholder(mult.shape, "float32")
    z = te.placeholder((1,), "int32")
    if builder == "requant":
        out = te.compute(acc.shape, lambda i: rq.requant_expr(a[i], m[i], z[0]))
    else:
        out = te.compute(acc.shape, lambda i: rq.fixed_expr(a[i], m[i]))
    library = tvm.compile(te.create_prim_func([a, m, z, out]), target=host_target())
    for zero_point in (-128, 0, 127):
        y = tvm.runtime.tensor(np.zeros(acc.shape, out.dtype))
        library(*(tvm.runtime.tensor(v) for v in (acc, mult, np.array([zero_point], np.int32))), y)
        expected = rq.requant(acc, mult, zero_point) if builder == "requant" else rq.fixed(acc, mult)
        np.testing.assert_array_equal(y.numpy(), expected)
