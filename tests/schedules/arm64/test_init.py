"""Machine code of the NEON and dotprod kernels: the instructions meant, nothing fused, no calls, no workspace."""

from __future__ import annotations

import re

import pytest
import tvm
from tvm.target import Target

from edgenext_tvm.codegen.plain_c import PlainKernel, lower_kernel
from edgenext_tvm.kernels import Add, Dense, Depthwise, InvertedBottleneck, Kernel, LayerNorm, XcaApply, XcaScores
from edgenext_tvm.schedules import schedule_kernel
from edgenext_tvm.schedules.arm64 import arm64_space

FEATURES = {"cortex-a72": ("neon",), "cortex-a76": ("neon", "dotprod")}


def lower(kernel: Kernel, name: str, processor: str, target: Target) -> PlainKernel:
    inputs = len(kernel.input_types())
    written = list(range(inputs, inputs + len(kernel.output_types())))
    merged = {inputs: kernel.inplace_input} if kernel.inplace_input >= 0 else {}
    func = schedule_kernel(kernel.prim_func(name), "aarch64", FEATURES[processor])
    return lower_kernel(func, name, target, written + list(merged.values()), merged)


def assembly(kernels: list[PlainKernel], target: Target) -> str:
    mod = tvm.IRModule({kernel.name: kernel.func for kernel in kernels})
    return tvm.get_global_func("target.build.llvm")(mod, target).inspect_source("asm")


@pytest.mark.parametrize("processor", FEATURES)
def test_no_fused_multiply_add_no_call_no_workspace(processor: str, awkward_kernels: list[Kernel], targets) -> None:
    target = targets[processor][1]
    lowered = [lower(kernel, f"kernel{i}", processor, target) for i, kernel in enumerate(awkward_kernels)]
    assert {kernel.hoisted_bytes for kernel in lowered} == {()}
    text = assembly(lowered, target)
    assert re.findall(r"^\s*(fml[as]|fn?madd|fn?msub)\b", text, re.MULTILINE) == []
    called = re.findall(r"^\s*blr?\s+(\S+)", text, re.MULTILINE)
    assert set(called) <= {"memcpy", "memset"}


@pytest.mark.parametrize(("processor", "wanted", "absent"), [
    ("cortex-a76", "sdot", "smlal2"),
    ("cortex-a72", "smlal2", "sdot"),
])  # fmt: skip
def test_products_use_the_processors_best_instruction(processor: str, wanted: str, absent: str, targets) -> None:
    target = targets[processor][1]
    text = assembly([lower(Dense(64, 96, 96, "lut"), "dense", processor, target)], target)
    assert text.count(f"{wanted}\t") >= 48
    assert absent not in text
    assert text.count("tbx\t") >= 3
    assert "ldrsb" not in text


@pytest.mark.parametrize("processor", FEATURES)
def test_the_innermost_loop_of_a_product_does_not_spill(processor: str, targets) -> None:
    target = targets[processor][1]
    text = assembly([lower(Dense(256, 352, 96), "dense", processor, target)], target)
    loops = re.findall(r"^(\.LBB\d+_\d+):((?:(?!^\.LBB)[\s\S])*?b\.ne\t\1$)", text, re.MULTILINE)
    products = [body for _, body in loops if re.search(r"sdot|smlal2", body)]
    assert products
    assert [body for body in products if "[sp" in body and re.search(r"str\tq|stp\tq", body)] == []


@pytest.mark.parametrize("processor", FEATURES)
def test_the_hidden_tensor_of_a_bottleneck_is_never_whole(processor: str, targets) -> None:
    kernel = InvertedBottleneck(4096, 24, 96, 24, "residual")
    lowered = lower(kernel, "bottleneck", processor, targets[processor][1])
    assert lowered.extent == 8
    assert lowered.hoisted_bytes == (8 * 64 * 96,)


@pytest.mark.parametrize(
    "kernel",
    [
        Add(64, 24),
        Dense(3, 17, 8),
        Dense(3, 16, 17),
        Depthwise(1, 8, 8, 16, 3, 3, epilogue="lut"),
        Depthwise(1, 8, 8, 4, 3, 3),
        InvertedBottleneck(8, 12, 18, 12),
        LayerNorm(4, 17),
        XcaApply(8, 12, 4),
        XcaScores(8, 12, 4),
    ],
)
def test_shapes_that_suit_no_vectors_are_left_to_the_portable_schedules(kernel: Kernel) -> None:
    assert arm64_space(kernel, kernel.prim_func("k"), frozenset({"neon", "dotprod"})) is None


def test_without_neon_nothing_is_special() -> None:
    kernel = Dense(64, 96, 96)
    assert arm64_space(kernel, kernel.prim_func("k"), frozenset()) is None
