"""Machine code of the NEON and dotprod kernels: the instructions meant, nothing fused, no calls, no workspace."""

from __future__ import annotations

import re

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
from edgenext_tvm.schedules import schedule_kernel, space_of
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


@pytest.mark.parametrize(("processor", "wanted", "absent"), [
    ("cortex-a76", r"sdot\tv\d+\.4s, v\d+\.16b, v\d+\.4b\[", r"sm[lu]+\w*\tv\d+\.4s"),
    ("cortex-a72", r"smlal2?\tv\d+\.4s, v\d+\.[48]h, v\d+\.h\[", "sdot|dup|saddlp|sadalp"),
])  # fmt: skip
@pytest.mark.parametrize(
    "kernel",
    [Dense(64, 96, 80, x_dtype="int16"), Conv2d(1, 32, 32, 24, 80, 2, 2, 2, 2, x_dtype="int16")],
    ids=lambda kernel: kernel.kind,
)
def test_products_of_wide_inputs_take_them_by_element(
    kernel: Kernel, processor: str, wanted: str, absent: str, targets
) -> None:
    target = targets[processor][1]
    text = assembly([lower(kernel, "product", processor, target)], target)
    assert len(re.findall(wanted, text)) >= 80
    assert [body for body in loops_of(text) if re.search(wanted, body) and re.search(absent, body)] == []


def loops_of(text: str) -> list[str]:
    """The innermost loops of a listing."""
    return [body for _, body in re.findall(r"^(\.LBB\d+_\d+):((?:(?!^\.LBB)[\s\S])*?b\.ne\t\1$)", text, re.MULTILINE)]


@pytest.mark.parametrize("processor", FEATURES)
@pytest.mark.parametrize("x_dtype", ["int8", "int16"])
@pytest.mark.parametrize("channels", [96, 160])
def test_the_innermost_loop_of_a_product_does_not_spill(channels: int, x_dtype: str, processor: str, targets) -> None:
    target = targets[processor][1]
    text = assembly([lower(Dense(256, 352, channels, x_dtype=x_dtype), "dense", processor, target)], target)
    products = [body for body in loops_of(text) if re.search(r"sdot|smlal2", body)]
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
        Conv2d(1, 8, 8, 8, 8, 3, 3, 1, 1, 1, 1, 1, 1, x_dtype="int16"),
        Dense(3, 16, 17),
        Dense(3, 18, 8, x_dtype="int16"),
        Dense(3, 16, 18, x_dtype="int16"),
        Depthwise(1, 8, 8, 16, 3, 3, epilogue="lut"),
        Depthwise(1, 8, 8, 4, 3, 3),
        InvertedBottleneck(8, 12, 18, 12),
        LayerNorm(4, 17),
        LayerNorm(4, 20, x_dtype="int16"),
        XcaApply(8, 12, 4),
        XcaScores(8, 12, 4),
    ],
)
def test_shapes_that_suit_no_vectors_are_left_to_the_portable_schedules(kernel: Kernel) -> None:
    assert arm64_space(kernel, kernel.prim_func("k"), frozenset({"neon", "dotprod"})) is None


@pytest.mark.parametrize("processor", FEATURES)
@pytest.mark.parametrize(
    "kernel",
    [
        Conv2d(1, 32, 24, 3, 24, 4, 4, 4, 4, x_dtype="int16"),
        Dense(7, 20, 12, "lut", x_dtype="int16"),
        Dense(24, 96, 24, "residual", "int16", "int16", "int16"),
        Dense(1, 168, 1000, "none", "float32", "int16"),
        Depthwise(1, 8, 8, 16, 3, 3, out_dtype="int16"),
        Depthwise(1, 8, 8, 16, 3, 3, x_dtype="int16"),
        LayerNorm(49, 24, x_dtype="int16"),
    ],
    ids=lambda kernel: kernel.task_hint.replace(" ", "-"),
)
def test_wide_tensors_have_code_of_their_own(kernel: Kernel, processor: str) -> None:
    family = {"cortex-a72": "arm64_neon", "cortex-a76": "arm64_dotprod"}[processor]
    assert space_of(kernel.prim_func("k"), "aarch64", FEATURES[processor]).family == f"{family}.{kernel.kind}"


def test_without_neon_nothing_is_special() -> None:
    kernel = Dense(64, 96, 96)
    assert arm64_space(kernel, kernel.prim_func("k"), frozenset()) is None
