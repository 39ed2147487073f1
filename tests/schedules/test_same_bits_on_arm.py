"""Machine code for Arm, run under qemu-user, gives the NumPy twins' bits: one C program per target holds all cases."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm import tirx
from tvm.target import Target

from edgenext_tvm.codegen.plain_c import PlainKernel, lower_kernel, object_bytes
from edgenext_tvm.kernels import Conv2d, Dense, Depthwise, Kernel, LayerNorm, XcaApply, XcaScores
from edgenext_tvm.kernels.packing import pack_arguments, packings_of
from edgenext_tvm.kernels.sample_inputs import PATTERNS, sample_inputs
from edgenext_tvm.schedules import schedule_kernel

C_TYPES = {"int8": "int8_t", "int16": "int16_t", "int32": "int32_t", "float32": "uint32_t"}
A64 = ["-target", "aarch64-linux-musl"]
A32 = ["-target", "arm-linux-musleabihf", "-mcpu=cortex_a7"]
# core: target, cpu.features, compiler flags, emulator
BOARDS = {
    "cortex-a53": ("cortex-a72", ["neon"], A64, ["qemu-aarch64", "-cpu", "cortex-a53"]),
    "cortex-a72": ("cortex-a72", ["neon"], A64, ["qemu-aarch64", "-cpu", "cortex-a72"]),
    "cortex-a72-portable": ("cortex-a72", [], A64, ["qemu-aarch64", "-cpu", "cortex-a72"]),
    "cortex-a76": ("cortex-a76", ["neon", "dotprod"], A64, ["qemu-aarch64", "-cpu", "cortex-a76"]),
    "cortex-a7": ("cortex-a7", ["neon", "vfp4"], A32, ["qemu-arm", "-cpu", "cortex-a7"]),
}
# shapes whose vectors, panels and windows end in every way that the special kernels distinguish
ENDS: list[Kernel] = [
    Conv2d(1, 12, 8, 12, 24, 3, 2, 1, 2),
    Conv2d(1, 32, 24, 3, 24, 4, 4, 4, 4),
    Conv2d(1, 8, 16, 48, 88, 2, 2, 2, 2),
    Conv2d(1, 32, 24, 3, 24, 4, 4, 4, 4, out_dtype="int16"),
    Dense(1, 20, 24, "lut"),
    Dense(5, 12, 8, "residual"),
    Dense(16, 24, 96, "lut"),
    Dense(24, 96, 24, "residual"),
    Dense(28, 672, 168, "residual"),
    Dense(5, 12, 8, "none", "int16"),
    Dense(28, 672, 168, "residual", "int16"),
    Dense(24, 96, 24, "residual", "int16", "int8", "int16"),
    Dense(24, 96, 28, "residual", "int8", "int8", "int16"),
    Conv2d(1, 8, 16, 12, 88, 2, 2, 2, 2, x_dtype="int16"),
    Dense(5, 12, 8, "lut", x_dtype="int16"),
    Dense(7, 72, 20, "residual", "int16", "int16", "int16"),
    Depthwise(1, 9, 24, 16, 3, 3, 1, 1, 1, 1, 1, 1),
    Depthwise(1, 10, 33, 30, 5, 5, 2, 2, 2, 2, 2, 2, 88, 28, 60, 30, "none", True),
    Depthwise(1, 8, 8, 24, 9, 9, 1, 1, 4, 4, 4, 4, epilogue="residual"),
    LayerNorm(12, 24),
    LayerNorm(8, 40, affine=True),
    LayerNorm(8, 40, True, "int16", "int16"),
    XcaApply(8, 168, 4),
    XcaScores(20, 168, 4),
]


def lower(kernel: Kernel, func: tirx.PrimFunc, target: Target, name: str) -> PlainKernel:
    first_output = len(kernel.input_types())
    written = list(range(first_output, first_output + len(kernel.output_types())))
    merged = {first_output: kernel.inplace_input} if kernel.inplace_input >= 0 else {}
    return lower_kernel(func, name, target, written + list(merged.values()), merged)


def c_array(name: str, array: np.ndarray) -> str:
    bits = array.view("uint32") if array.dtype == np.float32 else array
    values = ",".join(map(str, bits.reshape(-1).tolist())) if array.any() else "0"
    return f"static {C_TYPES[array.dtype.name]} {name}[{array.size}] __attribute__((aligned(64))) = {{{values}}};"


def program(kernels: list[Kernel], scheduled: list[tirx.PrimFunc], lowered: list[PlainKernel]) -> str:
    """A C program that runs every kernel on every pattern, in two ranges, and prints the cases that differ."""
    lines = ["#include <stdint.h>", "#include <stdio.h>", "#include <string.h>"]
    calls = []
    for number, (kernel, func, plain) in enumerate(zip(kernels, scheduled, lowered, strict=True)):
        lines.append(f"int32_t {plain.name}({'void *, ' * len(plain.arguments)}int32_t, int32_t);")
        for pattern in PATTERNS:
            prefix = f"v{number}_{pattern}_"
            inputs = sample_inputs(kernel, 1, pattern)
            arrays = [*pack_arguments(func, inputs), *(np.zeros(*type_) for type_ in kernel.output_types())]
            arrays += [np.zeros(size, np.int8) for size in plain.hoisted_bytes]
            lines += [c_array(f"{prefix}{index}", arrays[index]) for index in plain.arguments]
            lines.append(c_array(f"{prefix}expected", kernel.reference(*inputs)))
            names = ", ".join(f"{prefix}{index}" for index in plain.arguments)
            output = f"{prefix}{kernel.inplace_input if kernel.inplace_input >= 0 else len(inputs)}"
            middle = plain.extent // 2
            calls.append(f"{plain.name}({names}, 0, {middle}); {plain.name}({names}, {middle}, {plain.extent});")
            calls.append(
                f'if (memcmp({output}, {prefix}expected, sizeof {output})) puts("{kernel.task_hint} {pattern}");'
            )
    return "\n".join([*lines, "int main(void) {", *calls, 'puts("done"); return 0; }', ""])


@pytest.mark.slow
@pytest.mark.qemu
@pytest.mark.parametrize("board", BOARDS)
def test_arm_code_gives_the_twins_bits(
    board: str, awkward_kernels: list[Kernel], targets: dict[str, tuple[str, Target]], tmp_path: Path
) -> None:
    name, features, zig_flags, emulator = BOARDS[board]
    isa, target = targets[name]
    kernels = [*awkward_kernels, *ENDS]
    scheduled = [schedule_kernel(kernel.prim_func(f"kernel{i}"), isa, features) for i, kernel in enumerate(kernels)]
    if "neon" in features and isa == "aarch64":
        assert sum(bool(packings_of(func)) for func in scheduled) > 12
    lowered = [
        lower(kernel, func, target, f"kernel{i}")
        for i, (kernel, func) in enumerate(zip(kernels, scheduled, strict=True))
    ]
    with tvm.transform.PassContext(opt_level=3):
        (tmp_path / "kernels.o").write_bytes(object_bytes(lowered, target))
    (tmp_path / "main.c").write_text(program(kernels, scheduled, lowered))
    compiler = [sys.executable, "-m", "ziglang", "cc", *zig_flags, "-static", "-o", "main", "main.c", "kernels.o"]
    subprocess.run(compiler, cwd=tmp_path, check=True)
    result = subprocess.run([*emulator, "./main"], cwd=tmp_path, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "done\n"), result.stderr
