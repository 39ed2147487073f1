"""Executes a lowered module with the NumPy twin of every kernel: the definition that all targets must equal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tvm

from edgenext_tvm.codegen.program import ConstantRef, Operand, Program, read_program
from edgenext_tvm.errors import UserError
from edgenext_tvm.kernels.base import Kernel, kernel_of


class NoTwinError(UserError):
    """The module holds a kernel that was generated from float operators and has no NumPy twin."""


def load_lowered(path: Path) -> tvm.IRModule:
    """Reads a lowered module that compilation saved. Raises UserError when the file is missing or damaged."""
    try:
        loaded = tvm.ir.load_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; compile the model again") from None
    except Exception as error:  # TVM's parser raises several kinds
        first = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise UserError(f"{path} is no module of this TVM version ({first}); compile the model again") from None
    if not isinstance(loaded, tvm.IRModule):
        raise UserError(f"{path} holds a {type(loaded).__name__}, not a module; compile the model again")
    return loaded


def run_reference(mod: tvm.IRModule, x: np.ndarray) -> np.ndarray:
    """Logits of one network input, computed by the twins alone.

    x: [1,S,S,3], NHWC, of the dtype that `main` takes. Raises NoTwinError naming the layer whose kernel has no twin.
    """
    return ReferenceProgram(mod)(x)


class ReferenceProgram:
    """A lowered module prepared for several inputs."""

    def __init__(self, mod: tvm.IRModule) -> None:
        self.program: Program = read_program(mod)
        self.kernels: dict[str, Kernel] = {}
        for step in self.program.steps:
            kernel = kernel_of(self.program.functions[step.function])
            if kernel is None:
                raise NoTwinError(
                    f"layer '{step.layer}' runs the generated kernel '{step.function}', which has no NumPy twin"
                )
            self.kernels[step.function] = kernel

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.program.values[self.program.input].shape

    @property
    def input_dtype(self) -> str:
        return self.program.values[self.program.input].dtype

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Logits of `x`, whose shape and dtype are those of `main`'s input."""
        output = self.program.output
        return self.values(x)[output].reshape(self.program.values[output].shape)

    def values(self, x: np.ndarray) -> dict[int, np.ndarray]:
        """What every step makes of `x`, by the value's id; the input is among them."""
        if x.shape != self.input_shape or str(x.dtype) != self.input_dtype:
            raise UserError(
                f"reference input is {x.dtype} {list(x.shape)}; expected {self.input_dtype} {list(self.input_shape)}"
            )
        values: dict[int, np.ndarray] = {self.program.input: x}

        def array(operand: Operand) -> np.ndarray:
            if isinstance(operand, ConstantRef):
                return self.program.constants[operand.index]
            return values[operand.id]

        for step in self.program.steps:
            kernel = self.kernels[step.function]
            # a reshape is a view, so an operand may come with another shape of the same elements
            arguments = [
                array(operand).reshape(shape)
                for operand, (shape, _) in zip(step.inputs, kernel.input_types(), strict=True)
            ]
            values[step.results[0]] = kernel.reference(*arguments)
        return values
