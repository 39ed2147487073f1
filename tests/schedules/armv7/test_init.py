"""Armv7 NEON kernels give the twins' bits at any point of their spaces, and are the instructions that were meant."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

import numpy as np
import pytest
import tvm
from tvm.target import Target

from edgenext_tvm.codegen.plain_c import PlainKernel, lower_kernel
from edgenext_tvm.kernels import (
    Add,
    Conv2d,
    Dense,
    Depthwise,
    InvertedBottleneck,
    Kernel,
    LayerNorm,
    XcaApply,
    XcaScores,
)
from edgenext_tvm.kernels.sample_inputs import PATTERNS, sample_inputs
from edgenext_tvm.schedules.armv7 import armv7_space
from edgenext_tvm.schedules.space import Space

# shapes whose rows, channels and windows end in every way that the code distinguishes
ODD: list[Kernel] = [
    Conv2d(1, 12, 8, 12, 24, 3, 2, 1, 2),
    Conv2d(2, 8, 8, 4, 8, 2, 3, 2, 1, epilogue="residual"),
    Dense(1, 20, 24, "lut"),
    Dense(5, 12, 12, "residual"),
    Dense(7, 44, 20),
    Dense(1, 36, 40, "none", "float32"),
    Depthwise(1, 9, 24, 16, 3, 3, 1, 1, 1, 1, 1, 1),
    Depthwise(1, 10, 33, 30, 5, 5, 2, 2, 2, 2, 2, 2, 88, 28, 60, 30, "none", True),
    Depthwise(1, 7, 7, 24, 9, 9, 1, 1, 4, 4, 4, 4, epilogue="residual"),
    InvertedBottleneck(6, 12, 20, 8),
    InvertedBottleneck(16, 8, 32, 24, "residual"),
    LayerNorm(12, 24),
    LayerNorm(5, 40, affine=True),
    XcaApply(6, 27, 3),
    XcaScores(5, 30, 3),
]
# layers of EdgeNeXt-XXS at 256x256, on fewer pixels
XXS: list[Kernel] = [
    Conv2d(1, 16, 16, 3, 24, 4, 4, 4, 4),
    Dense(64, 88, 264),
    Depthwise(1, 8, 16, 48, 5, 5, 1, 1, 2, 2, 2, 2),
    InvertedBottleneck(16, 88, 352, 88, "residual"),
    LayerNorm(32, 168),
    XcaApply(16, 88, 4),
    XcaScores(16, 88, 4),
]


def space_of(kernel: Kernel) -> Space:
    space = armv7_space(kernel, kernel.prim_func("k"), frozenset({"neon", "vfp4"}))
    assert space is not None, kernel
    return space


def lower(kernel: Kernel, name: str, target: Target) -> PlainKernel:
    inputs = len(kernel.input_types())
    written = list(range(inputs, inputs + len(kernel.output_types())))
    merged = {inputs: kernel.inplace_input} if kernel.inplace_input >= 0 else {}
    return lower_kernel(space_of(kernel).at(), name, target, written + list(merged.values()), merged)


def assembly(kernels: list[Kernel], target: Target) -> str:
    lowered = [lower(kernel, f"kernel{i}", target) for i, kernel in enumerate(kernels)]
    mod = tvm.IRModule({kernel.name: kernel.func for kernel in lowered})
    return tvm.get_global_func("target.build.llvm")(mod, target).inspect_source("asm")


@pytest.mark.qemu
def test_the_hand_picked_and_a_sampled_point_give_the_twins_bits(differing: Callable, case_at: Callable) -> None:
    cases = []
    for kernel in ODD:
        space = space_of(kernel)
        inputs = [sample_inputs(kernel, 1, pattern) for pattern in PATTERNS]
        cases.append(case_at(kernel, space, None, inputs))
        sampled = random.Random(kernel.task_hint).choice(list(space.points()))
        if sampled != space.default:
            cases.append(case_at(kernel, space, sampled, inputs))
    assert len(cases) > len(ODD) + 8
    assert differing(cases) == []


@pytest.mark.slow
@pytest.mark.qemu
def test_many_points_give_the_twins_bits(differing: Callable, case_at: Callable) -> None:
    cases = []
    for kernel in [*ODD, *XXS]:
        points = list(space_of(kernel).points())
        inputs = [sample_inputs(kernel, 2, pattern) for pattern in ("random", "opposed")]
        for decisions in random.Random(0).sample(points, min(8, len(points))):
            cases.append(case_at(kernel, space_of(kernel), decisions, inputs))
    assert differing(cases) == []


@pytest.mark.qemu
def test_rounding_saturates_like_the_twin_whatever_the_multiplier(differing: Callable, case_at: Callable) -> None:
    kernels = [Dense(4, 8, 16), Dense(4, 8, 16, "lut"), Dense(4, 8, 16, "residual")]
    cases = []
    for kernel in kernels:
        x, w, _, _, qp, *extra = sample_inputs(kernel, 3, "random")
        bias = np.array([0, 1, -1, 2**30, -(2**30), 2**31 - 20_000_000, 20_000_000 - 2**31, 5] * 2, np.int32)
        everything = []
        for exponent in (-149, -126, -60, -31, -24, -9, -8, -7, -1, 0, 1, 22, 23, 24, 60, 96):
            mult = np.full(16, 2.0**exponent, np.float32)
            everything.append([x, w, bias, mult, qp, *extra])
        cases.append(case_at(kernel, space_of(kernel), None, everything))
    assert differing(cases) == []


def test_products_are_two_multiplies_and_one_pairwise_addition(cortex_a7: Target) -> None:
    text = assembly([Dense(64, 96, 96, "lut")], cortex_a7)
    multiplies = text.count("vmull.s8") + text.count("vmlal.s8")
    assert multiplies >= 64
    assert text.count("vmull.s8") == text.count("vmlal.s8")
    assert text.count("vpadal.s16") + text.count("vpaddl.s16") == multiplies // 2
    assert "vmlal.s16" not in text


def test_the_innermost_loop_of_a_product_does_not_spill(cortex_a7: Target) -> None:
    text = assembly([Dense(256, 352, 96)], cortex_a7)
    loops = re.findall(r"^(\.LBB\d+_\d+):((?:(?!^\.LBB)[\s\S])*?bne\t\1$)", text, re.MULTILINE)
    products = [body for _, body in loops if "vmlal.s8" in body]
    assert len(products) == 1
    assert products[0].count("vpadal.s16") == 32
    assert "sp" not in re.findall(r"\w+", products[0])


def test_no_fused_multiply_add_no_call(cortex_a7: Target) -> None:
    text = assembly([*ODD, *XXS], cortex_a7)
    assert re.findall(r"^\s*(vfn?m[as](?:\.f32)?|vml[as]\.f32)\b", text, re.MULTILINE) == []
    assert re.findall(r"^\s*blx?\s+(\S+)", text, re.MULTILINE) == []


@pytest.mark.parametrize("kernel", XXS, ids=lambda kernel: kernel.kind)
def test_a_space_has_some_points_not_thousands(kernel: Kernel) -> None:
    space = space_of(kernel)
    points = list(space.points())
    assert space.family == f"armv7_neon.{kernel.kind}"
    assert space.default in points
    assert 2 <= len(points) <= 400


@pytest.mark.parametrize(
    "kernel",
    [
        Add(64, 24),
        Conv2d(1, 9, 7, 4, 8, 3, 3, 2, 2, 1, 1, 1, 1),
        Dense(3, 17, 8),
        Dense(3, 16, 18),
        Depthwise(1, 8, 8, 16, 3, 3, epilogue="lut"),
        Depthwise(1, 8, 8, 4, 3, 3),
        InvertedBottleneck(8, 10, 16, 8),
        LayerNorm(4, 17),
        XcaApply(8, 12, 4),
        XcaScores(8, 12, 4),
    ],
    ids=lambda kernel: kernel.task_hint.replace(" ", "-"),
)
def test_shapes_that_suit_no_vectors_are_left_to_the_portable_schedules(kernel: Kernel) -> None:
    assert armv7_space(kernel, kernel.prim_func("k"), frozenset({"neon"})) is None


def test_without_neon_nothing_is_special() -> None:
    kernel = Dense(64, 96, 96)
    assert armv7_space(kernel, kernel.prim_func("k"), frozenset({"vfp4"})) is None
