"""Kernels built for AVX-512 run here, where the machine has it, and must give their twins' bits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from tvm import tirx

from edgenext_tvm import native
from edgenext_tvm.kernels import Kernel
from edgenext_tvm.kernels.run_host import compile_on_host
from edgenext_tvm.kernels.sample_inputs import PATTERNS, sample_inputs
from edgenext_tvm.schedules import schedule_kernel
from edgenext_tvm.schedules.x86 import NEEDED

Check = Callable[..., None]


@pytest.fixture
def check() -> Check:
    """check(kernel[, func]): `func`, by default what `schedule_kernel` builds, gives the twin's bits."""
    if native.isa() != "x86_64" or not set(native.features()) >= NEEDED:
        pytest.skip(f"this machine lacks one of {', '.join(sorted(NEEDED))}")

    def run(kernel: Kernel, func: tirx.PrimFunc | None = None) -> None:
        func = func or schedule_kernel(kernel.prim_func("kernel"), "x86_64", sorted(NEEDED))
        call = compile_on_host(kernel, func)
        for pattern in PATTERNS:
            inputs = sample_inputs(kernel, 1, pattern)
            np.testing.assert_array_equal(call(inputs), kernel.reference(*inputs), err_msg=pattern)

    return run
