"""Runs one kernel's PrimFunc on this machine, to compare its bits with the NumPy twin's."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tvm
from tvm import tirx
from tvm.target import Target, codegen

from .base import Kernel
from .packing import pack_arguments


def host_target() -> Target:
    """Return the LLVM target of this machine's processor with all its features."""
    return Target({"kind": "llvm", "mcpu": codegen.llvm_get_system_cpu()})


def compile_on_host(
    kernel: Kernel, func: tirx.PrimFunc, target: Target | None = None
) -> Callable[[Sequence[np.ndarray]], np.ndarray]:
    """Return a function from the kernel's inputs to output 0, which runs `func`: the kernel, scheduled or not.

    Arguments that `func` declares as packed are packed here. target: by default `host_target`; this machine must
    have its instructions.
    """
    target = target or host_target()
    library = tvm.compile(tvm.IRModule({"kernel": func.with_attr("global_symbol", "kernel")}), target=target)

    def run(inputs: Sequence[np.ndarray]) -> np.ndarray:
        arguments = [tvm.runtime.tensor(array) for array in pack_arguments(func, inputs)]
        outputs = [tvm.runtime.tensor(np.zeros(*type_)) for type_ in kernel.output_types()]
        if kernel.inplace_input >= 0:
            outputs[0] = arguments[kernel.inplace_input]
        library["kernel"](*arguments, *outputs)
        return outputs[0].numpy()

    return run
