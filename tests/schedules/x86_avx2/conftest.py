"""Kernels built for AVX2, and for products by vpdpbusd, run here where the machine can and give their twins' bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from tvm.target import Target

from edgenext_tvm import native
from edgenext_tvm.kernels import Kernel
from edgenext_tvm.kernels.run_host import compile_on_host
from edgenext_tvm.kernels.sample_inputs import PATTERNS, sample_inputs
from edgenext_tvm.schedules.space import Decisions, Space
from edgenext_tvm.schedules.x86_avx2 import x86_avx2_space

BASE = {"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": "x86-64-v3"}
# The same function holds for AVX-VNNI, whose encoding few machines have: 256-bit AVX-512 gives the same bits.
VNNI_FEATURES = ("avx512f", "avx512bw", "avx512vl", "avx512vnni")
STYLES = {
    "vpmaddwd": (("avx2",), Target(BASE)),
    "vpdpbusd": (("avx2", *VNNI_FEATURES), Target({**BASE, "mattr": [f"+{name}" for name in VNNI_FEATURES]})),
}

Check = Callable[..., None]
SpaceOf = Callable[[Kernel], Space]


@pytest.fixture(params=STYLES)
def style(request: pytest.FixtureRequest) -> tuple[frozenset[str], Target]:
    """Features and target of each way of adding products."""
    features, target = STYLES[request.param]
    return frozenset(features), target


@pytest.fixture
def space_of(style: tuple[frozenset[str], Target]) -> SpaceOf:
    """space_of(kernel): its space for AVX2; there must be one."""
    return lambda kernel: _space(kernel, style[0])


@pytest.fixture
def check(style: tuple[frozenset[str], Target]) -> Check:
    """check(kernel[, decisions[, patterns]]): the kernel, by default its hand-picked point, gives its twin's bits."""
    return _check(*style)


@pytest.fixture
def avx2_space_of() -> SpaceOf:
    """avx2_space_of(kernel): the same, for kernels without products by vpdpbusd."""
    return lambda kernel: _space(kernel, frozenset({"avx2"}))


@pytest.fixture
def check_avx2() -> Check:
    """check_avx2(kernel[, decisions[, patterns]]): the same, for kernels without products by vpdpbusd."""
    return _check(frozenset({"avx2"}), Target(BASE))


def _space(kernel: Kernel, features: frozenset[str]) -> Space:
    space = x86_avx2_space(kernel, kernel.prim_func("kernel"), features)
    assert space is not None, kernel
    return space


def _check(features: frozenset[str], target: Target) -> Check:
    if native.isa() != "x86_64" or not set(native.features()) >= features:
        pytest.skip(f"this machine lacks one of {', '.join(sorted(features))}")

    def run(kernel: Kernel, decisions: Decisions | None = None, patterns: Sequence[str] = PATTERNS) -> None:
        call = compile_on_host(kernel, _space(kernel, features).at(decisions), target)
        for pattern in patterns:
            inputs = sample_inputs(kernel, 1, pattern)
            np.testing.assert_array_equal(call(inputs), kernel.reference(*inputs), err_msg=f"{pattern} {decisions}")

    return run


@pytest.fixture
def check_points(check: Check, space_of: SpaceOf) -> Check:
    """check_points(kernel, count): `count` points of the kernel's space, spread over it, give the twin's bits."""

    def run(kernel: Kernel, count: int) -> None:
        points = list(space_of(kernel).points())
        assert len(points) >= count
        for index in np.random.default_rng(3).choice(len(points), count, replace=False):
            check(kernel, points[index], ("random", "opposed"))

    return run
