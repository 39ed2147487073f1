"""What every kernel test needs: compile the unscheduled kernel once, compare it with its twin on all patterns."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edgenext_tvm.kernels import Kernel
from edgenext_tvm.kernels.run_host import compile_on_host
from edgenext_tvm.kernels.sample_inputs import PATTERNS, sample_inputs
from edgenext_tvm.kernels.wide import QRANGE


@pytest.fixture
def assert_twin_matches() -> Callable[..., None]:
    """Return a check that the TIR of a kernel gives the twin's bits on random data and at every extreme."""

    def check(kernel: Kernel) -> None:
        run = compile_on_host(kernel, kernel.prim_func("kernel"))
        for pattern in PATTERNS:
            for seed in (0, 1) if pattern == "random" else (0,):
                inputs = sample_inputs(kernel, seed, pattern)
                expected = kernel.reference(*inputs)
                np.testing.assert_array_equal(run(inputs), expected, err_msg=f"{kernel} {pattern} seed {seed}")

    return check


@pytest.fixture
def assert_within_one_level() -> Callable[[np.ndarray, np.ndarray, float, int], None]:
    """Return a check that values are at most one level from real values quantized with (scale, zero point)."""

    def check(q: np.ndarray, real: np.ndarray, scale: float, zero_point: int) -> None:
        expected = np.clip(np.rint(real / scale) + zero_point, *QRANGE[q.dtype.name])
        error = np.abs(q.astype(np.float64) - expected)
        assert error.max() <= 1, f"off by {error.max()} levels"
        # Were the scale wrong by a few percent, far more values than those near a tie would differ.
        assert (error > 0).mean() < 0.05, f"{(error > 0).mean():.1%} of the values differ"
        assert len(np.unique(expected)) > 20, "the data exercise too few levels to prove anything"

    return check
