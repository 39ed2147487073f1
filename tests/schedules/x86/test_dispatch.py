"""What holds for all AVX-512 kernels: no fused multiply-adds, no hidden memory, and none without the features."""

from __future__ import annotations

import re

import pytest
import tvm
from tvm.target import Target

from edgenext_tvm.codegen.plain_c import PlainKernel, lower_kernel, object_bytes
from edgenext_tvm.kernels import (
    Add,
    Conv2d,
    Dense,
    Depthwise,
    InvertedBottleneck,
    Kernel,
    LayerNorm,
    Lut,
    XcaApply,
    XcaScores,
    kernel_of,
)
from edgenext_tvm.schedules import schedule_kernel
from edgenext_tvm.schedules.x86 import NEEDED, x86_space

TARGET = Target({"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": "znver4"})
KERNELS: list[Kernel] = [
    Add(64, 30, 88, 0, 88, 30),
    Conv2d(1, 64, 64, 3, 24, 4, 4, 4, 4),
    Dense(64, 24, 96, "lut"),
    Dense(64, 352, 88, "residual"),
    Dense(1, 168, 1000, "none", "float32"),
    Dense(64, 96, 24, "residual", "int16", "int16", "int16"),
    Conv2d(1, 8, 8, 24, 88, 2, 2, 2, 2, x_dtype="int16"),
    Depthwise(1, 16, 16, 88, 7, 7, 1, 1, 3, 3, 3, 3),
    Depthwise(1, 8, 8, 168, 9, 9, 1, 1, 4, 4, 4, 4),
    Depthwise(1, 8, 8, 100, 7, 7, 1, 1, 3, 3, 3, 3, out_dtype="int16"),
    InvertedBottleneck(64, 24, 96, 24, "residual"),
    LayerNorm(64, 24),
    LayerNorm(64, 100, affine=True),
    LayerNorm(64, 88, True, "int16", "int16"),
    Lut(64, 28, 88, 60, 88, 60, inplace=True),
    XcaApply(64, 168, 4),
    XcaScores(64, 168, 4),
]
OTHER_CALLS = re.compile(r"^\s*(callq?|vfn?m(add|sub)\w*)\b.*$", re.MULTILINE)


def lower(kernel: Kernel, name: str) -> PlainKernel:
    first = len(kernel.input_types())
    written = list(range(first, first + len(kernel.output_types())))
    merged = {first: kernel.inplace_input} if kernel.inplace_input >= 0 else {}
    func = schedule_kernel(kernel.prim_func(name), "x86_64", sorted(NEEDED))
    return lower_kernel(func, name, TARGET, written + list(merged.values()), merged)


@pytest.fixture(scope="module")
def lowered() -> list[PlainKernel]:
    return [lower(kernel, f"kernel{number}") for number, kernel in enumerate(KERNELS)]


def test_machine_code_has_no_fused_multiply_add_and_no_calls(lowered: list[PlainKernel]) -> None:
    mod = tvm.IRModule({kernel.name: kernel.func for kernel in lowered})
    assembly = tvm.get_global_func("target.build.llvm")(mod, TARGET).inspect_source("asm")
    assert ("vpdpbusd" in assembly and "vpermi2b" in assembly) or "vpermt2b" in assembly
    assert [m.group(0) for m in OTHER_CALLS.finditer(assembly)] == []


def test_no_kernel_needs_a_hidden_workspace(lowered: list[PlainKernel]) -> None:
    assert [kernel.hoisted_bytes for kernel in lowered] == [()] * len(lowered)


def test_all_kernels_stay_small(lowered: list[PlainKernel]) -> None:
    assert len(object_bytes(lowered, TARGET)) < 20_000 * len(KERNELS)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: k.task_hint.replace(" ", "-"))
def test_every_kind_is_built_and_keeps_its_description(kernel: Kernel) -> None:
    func = kernel.prim_func("kernel")
    built = x86_space(kernel, func, NEEDED).at()
    assert built is not None and kernel_of(built) == kernel
    assert [p.name for p in built.params] == [p.name for p in func.params]


@pytest.mark.parametrize("missing", sorted(NEEDED))
def test_without_one_of_the_features_the_portable_schedule_is_taken(missing: str) -> None:
    kernel = Dense(8, 24, 96, "lut")
    assert x86_space(kernel, kernel.prim_func("kernel"), NEEDED - {missing}) is None


def test_shapes_without_special_code_are_left_alone() -> None:
    for kernel in (
        Conv2d(1, 8, 8, 3, 8, 3, 3, 1, 1, 1, 1, 1, 1),
        Depthwise(1, 8, 8, 8, 3, 3),
        Depthwise(1, 8, 8, 16, 3, 3, x_dtype="int16"),
        XcaScores(5, 12, 4),
    ):
        assert x86_space(kernel, kernel.prim_func("kernel"), NEEDED) is None
