"""Runs many kernels on an emulated Cortex-A7 in one C program and compares them with their NumPy twins."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm import tirx
from tvm.target import Target

from edgenext_tvm.board import load_board
from edgenext_tvm.codegen.plain_c import PlainKernel, lower_kernel, object_bytes
from edgenext_tvm.kernels import Kernel
from edgenext_tvm.kernels.packing import pack_arguments
from edgenext_tvm.schedules.space import Space

C_TYPES = {"int8": "int8_t", "int16": "int16_t", "int32": "int32_t", "float32": "uint32_t"}


@dataclass(frozen=True)
class Case:
    """A kernel at a point of its space, and the inputs to run it on."""

    kernel: Kernel
    func: tirx.PrimFunc
    inputs: tuple[tuple[np.ndarray, ...], ...]
    what: str


def lower(kernel: Kernel, func: tirx.PrimFunc, target: Target, name: str) -> PlainKernel:
    first_output = len(kernel.input_types())
    written = list(range(first_output, first_output + len(kernel.output_types())))
    merged = {first_output: kernel.inplace_input} if kernel.inplace_input >= 0 else {}
    return lower_kernel(func, name, target, written + list(merged.values()), merged)


def c_array(name: str, array: np.ndarray) -> str:
    bits = array.view("uint32") if array.dtype == np.float32 else array
    values = ",".join(map(str, bits.reshape(-1).tolist())) if array.any() else "0"
    return f"static {C_TYPES[array.dtype.name]} {name}[{array.size}] __attribute__((aligned(64))) = {{{values}}};"


def program(cases: Sequence[Case], lowered: Sequence[PlainKernel]) -> str:
    """A C program that runs every case in two ranges and prints those whose output differs from the twin's."""
    lines = ["#include <stdint.h>", "#include <stdio.h>", "#include <string.h>"]
    calls = []
    for number, (case, plain) in enumerate(zip(cases, lowered, strict=True)):
        lines.append(f"int32_t {plain.name}({'void *, ' * len(plain.arguments)}int32_t, int32_t);")
        kernel, middle = case.kernel, plain.extent // 2
        for index, inputs in enumerate(case.inputs):
            prefix = f"v{number}_{index}_"
            arrays = [*pack_arguments(case.func, inputs), *(np.zeros(*type_) for type_ in kernel.output_types())]
            # scratch is undefined before a call
            arrays += [np.full(size, 77, np.int8) for size in plain.hoisted_bytes]
            lines += [c_array(f"{prefix}{argument}", arrays[argument]) for argument in plain.arguments]
            lines.append(c_array(f"{prefix}expected", kernel.reference(*inputs)))
            names = ", ".join(f"{prefix}{argument}" for argument in plain.arguments)
            output = f"{prefix}{kernel.inplace_input if kernel.inplace_input >= 0 else len(inputs)}"
            calls.append(f"{plain.name}({names}, 0, {middle}); {plain.name}({names}, {middle}, {plain.extent});")
            calls.append(f'if (memcmp({output}, {prefix}expected, sizeof {output})) puts("{case.what}: {index}");')
    return "\n".join([*lines, "int main(void) {", *calls, 'puts("done"); return 0; }', ""])


@pytest.fixture(scope="session")
def cortex_a7() -> Target:
    """What the board rpi2 is compiled for."""
    return load_board("rpi2").tvm_target()


@pytest.fixture
def differing(cortex_a7: Target, tmp_path: Path) -> Callable[[Sequence[Case]], list[str]]:
    """Function that runs cases under qemu-arm and returns those that differ from their twins."""

    def run(cases: Sequence[Case]) -> list[str]:
        lowered = [lower(case.kernel, case.func, cortex_a7, f"kernel{i}") for i, case in enumerate(cases)]
        with tvm.transform.PassContext(opt_level=3):
            (tmp_path / "kernels.o").write_bytes(object_bytes(lowered, cortex_a7))
        (tmp_path / "main.c").write_text(program(cases, lowered))
        compiler = [sys.executable, "-m", "ziglang", "cc", "-target", "arm-linux-musleabihf", "-mcpu=cortex_a7"]
        subprocess.run([*compiler, "-static", "-o", "main", "main.c", "kernels.o"], cwd=tmp_path, check=True)
        emulator = ["qemu-arm", "-cpu", "cortex-a7", "./main"]
        result = subprocess.run(emulator, cwd=tmp_path, capture_output=True, text=True)
        *lines, last = result.stdout.splitlines()
        assert (result.returncode, last) == (0, "done"), result.stderr
        return lines

    return run


@pytest.fixture
def case_at() -> Callable[..., Case]:
    """Function (kernel, its space, decisions or None for the default, inputs) -> case."""

    def make(kernel: Kernel, space: Space, decisions: dict[str, int] | None, inputs: Sequence) -> Case:
        what = f"{kernel.task_hint} at {decisions or space.default}"
        return Case(kernel, space.at(decisions), tuple(tuple(arrays) for arrays in inputs), what)

    return make
