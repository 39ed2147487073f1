"""Runs points of design spaces as machine code under qemu-aarch64, many in one program."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest
from tvm.target import Target

from edgenext_tvm.codegen.plain_c import PlainKernel, lower_kernel, object_bytes
from edgenext_tvm.kernels import Kernel
from edgenext_tvm.kernels.packing import pack_arguments
from edgenext_tvm.kernels.sample_inputs import sample_inputs
from edgenext_tvm.schedules import space_of

FEATURES = {"cortex-a72": ("neon",), "cortex-a76": ("neon", "dotprod")}
ALIGN = 64

Case = tuple[Kernel, "dict[str, int] | None"]


class WrongPoints(Protocol):
    """See the fixture `wrong_points`."""

    def __call__(
        self, processor: str, cases: Sequence[Case], patterns: Sequence[str], weight: int | None = None
    ) -> list[str]: ...


class _Data:
    """Arrays as symbols of one file that the assembler includes."""

    def __init__(self) -> None:
        self.contents = bytearray()
        self.lines: list[str] = []

    def add(self, name: str, array: np.ndarray) -> None:
        content = np.ascontiguousarray(array).tobytes()
        at = f'.incbin \\"data.bin\\",{len(self.contents)},{len(content)}'
        self.lines.append(f'__asm__(".data\\n.balign {ALIGN}\\n{name}: {at}\\n.text");')
        self.lines.append(f"extern char {name}[];")
        self.contents += content


def _lower(kernel: Kernel, decisions: dict[str, int] | None, processor: str, name: str, target: Target):
    func = space_of(kernel.prim_func(name), "aarch64", FEATURES[processor]).at(decisions)
    first_output = len(kernel.input_types())
    written = list(range(first_output, first_output + len(kernel.output_types())))
    merged = {first_output: kernel.inplace_input} if kernel.inplace_input >= 0 else {}
    return func, lower_kernel(func, name, target, written + list(merged.values()), merged)


@pytest.fixture
def wrong_points(targets: dict[str, tuple[str, Target]], tmp_path: Path) -> WrongPoints:
    """(processor, points, input patterns) -> those whose bits differ from the twin's, run in two ranges.

    A last argument is the value of all weights, in place of the pattern's.
    """

    def run(processor: str, cases: Sequence[Case], patterns: Sequence[str], weight: int | None = None) -> list[str]:
        target = targets[processor][1]
        data, calls = _Data(), []
        lowered: list[PlainKernel] = []
        for number, (kernel, decisions) in enumerate(cases):
            func, plain = _lower(kernel, decisions, processor, f"kernel{number}", target)
            lowered.append(plain)
            data.lines.append(f"int32_t {plain.name}({'void *, ' * len(plain.arguments)}int32_t, int32_t);")
            scratch = [np.zeros(size, np.int8) for size in plain.hoisted_bytes]
            for pattern in patterns:
                prefix = f"v{number}_{pattern}_"
                inputs = sample_inputs(kernel, 1, pattern)
                if weight is not None:
                    inputs[1].fill(weight)
                outputs = [np.zeros(*type_) for type_ in kernel.output_types()]
                arrays = [*pack_arguments(func, inputs), *outputs, *scratch]
                for index in plain.arguments:
                    data.add(f"{prefix}{index}", arrays[index])
                expected = kernel.reference(*inputs)
                data.add(f"{prefix}expected", expected)
                names = ", ".join(f"{prefix}{index}" for index in plain.arguments)
                output = f"{prefix}{kernel.inplace_input if kernel.inplace_input >= 0 else len(inputs)}"
                middle = plain.extent // 2
                calls.append(f"{plain.name}({names}, 0, {middle}); {plain.name}({names}, {middle}, {plain.extent});")
                calls.append(
                    f"if (memcmp({output}, {prefix}expected, {expected.nbytes})) "
                    f'puts("{kernel.task_hint} {decisions} {pattern}");'
                )
        (tmp_path / "kernels.o").write_bytes(object_bytes(lowered, target))
        (tmp_path / "data.bin").write_bytes(bytes(data.contents))
        includes = ["#include <stdint.h>", "#include <stdio.h>", "#include <string.h>"]
        main = [*includes, *data.lines, "int main(void) {", *calls, 'puts("done"); return 0; }', ""]
        (tmp_path / "main.c").write_text("\n".join(main))
        zig = [sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-musl", "-static"]
        subprocess.run([*zig, "-o", "main", "main.c", "kernels.o"], cwd=tmp_path, check=True)
        emulator = ["qemu-aarch64", "-cpu", processor, "./main"]
        result = subprocess.run(emulator, cwd=tmp_path, capture_output=True, text=True)
        *wrong, last = result.stdout.splitlines() or [""]
        assert (result.returncode, last) == (0, "done"), result.stderr
        return wrong

    return run
