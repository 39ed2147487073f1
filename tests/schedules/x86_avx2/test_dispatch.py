"""What holds for all AVX2 kernels: no fused multiply-adds, no calls, little hidden memory, none without AVX2."""

from __future__ import annotations

import re

import pytest
import tvm
from tvm.target import Target

from edgenext_tvm.board import load_board
from edgenext_tvm.codegen.plain_c import PlainKernel, lower_kernel
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
from edgenext_tvm.schedules.default import space_of
from edgenext_tvm.schedules.x86_avx2 import x86_avx2_space

BASE = {"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": "x86-64-v3"}
AVX2 = Target(BASE)
AVX_VNNI = Target({**BASE, "mattr": ["+avxvnni"]})
KERNELS: list[Kernel] = [
    Add(64, 30, 88, 0, 88, 30),
    Conv2d(1, 64, 64, 3, 24, 4, 4, 4, 4),
    Dense(64, 24, 96, "lut"),
    Dense(64, 352, 88, "residual"),
    Dense(1, 168, 1000, "none", "float32"),
    Depthwise(1, 16, 16, 88, 7, 7, 1, 1, 3, 3, 3, 3),
    InvertedBottleneck(64, 88, 352, 88, "residual"),
    LayerNorm(64, 24),
    LayerNorm(64, 100, affine=True),
    Lut(64, 28, 88, 60, 88, 60, inplace=True),
    XcaApply(64, 168, 4),
    XcaScores(64, 168, 4),
]
OTHER_CALLS = re.compile(r"^\s*(callq?|vfn?m(add|sub)\w*)\b.*$", re.MULTILINE)


def lower(kernel: Kernel, name: str, features: list[str], target: Target) -> PlainKernel:
    first = len(kernel.input_types())
    written = list(range(first, first + len(kernel.output_types())))
    merged = {first: kernel.inplace_input} if kernel.inplace_input >= 0 else {}
    func = schedule_kernel(kernel.prim_func(name), "x86_64", features)
    return lower_kernel(func, name, target, written + list(merged.values()), merged)


def assembly(kernels: list[PlainKernel], target: Target) -> str:
    mod = tvm.IRModule({kernel.name: kernel.func for kernel in kernels})
    return str(tvm.get_global_func("target.build.llvm")(mod, target).inspect_source("asm"))


@pytest.fixture(scope="module")
def lowered() -> list[PlainKernel]:
    return [lower(kernel, f"kernel{number}", ["avx2"], AVX2) for number, kernel in enumerate(KERNELS)]


def test_machine_code_has_no_fused_multiply_add_and_no_calls(lowered: list[PlainKernel]) -> None:
    text = assembly(lowered, AVX2)
    assert "vpmaddwd" in text and "vpshufb" in text and "zmm" not in text
    assert [m.group(0) for m in OTHER_CALLS.finditer(text)] == []


def test_with_avx_vnni_products_are_vpdpbusd_without_avx512() -> None:
    kernel = lower(Dense(64, 24, 96, "lut"), "kernel", ["avx2", "avxvnni"], AVX_VNNI)
    text = assembly([kernel], AVX_VNNI)
    assert "vpdpbusd" in text and "vpmaddwd" not in text
    # Eight-byte prefixes of AVX-512 would need registers or masks that these processors lack.
    assert not re.search(r"%[xyz]mm(1[6-9]|2\d|3[01])|%k[0-7]", text)


def test_only_a_bottleneck_needs_a_workspace_of_a_few_rows(lowered: list[PlainKernel]) -> None:
    sizes = {kernel.kind: built.hoisted_bytes for kernel, built in zip(KERNELS, lowered, strict=True)}
    # 8 chunks of 4 rows of 352 hidden values as int16
    assert sizes.pop("inverted_bottleneck") == (8 * 4 * 352 * 2,)
    assert set(sizes.values()) == {()}


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: k.task_hint.replace(" ", "-"))
def test_every_kind_is_built_and_keeps_its_description(kernel: Kernel) -> None:
    func = kernel.prim_func("kernel")
    space = space_of(func, "x86_64", ["avx2"])
    built = space.at()
    assert space.family == f"x86_avx2.{kernel.kind}"
    assert kernel_of(built) == kernel
    assert [p.name for p in built.params] == [p.name for p in func.params]


@pytest.mark.parametrize(
    ("features", "family"),
    [
        ([], "x86_64.dense"),
        (["avx2"], "x86_avx2.dense"),
        (["avx2", "avxvnni"], "x86_avxvnni.dense"),
        # Cascade Lake: AVX-512 without VBMI
        (["avx2", "avx512f", "avx512bw", "avx512vl", "avx512vnni"], "x86_avxvnni.dense"),
        (["avx2", "avx512f", "avx512bw", "avx512vl", "avx512vnni", "avx512vbmi"], "x86_vnni.dense"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else value,
)
def test_the_widest_products_of_the_processor_are_taken(features: list[str], family: str) -> None:
    assert space_of(Dense(8, 24, 96, "lut").prim_func("kernel"), "x86_64", features).family == family


def test_shapes_without_special_code_are_left_alone() -> None:
    padded = Conv2d(1, 8, 8, 3, 8, 3, 3, 1, 1, 1, 1, 1, 1)
    for kernel in (padded, Depthwise(1, 8, 8, 7, 3, 3), XcaScores(5, 4, 4)):
        assert x86_avx2_space(kernel, kernel.prim_func("kernel"), frozenset({"avx2"})) is None


def test_the_board_host_avx2_has_avx2_and_nothing_wider() -> None:
    board = load_board("host-avx2")
    assert "avx2" in board.cpu.features
    assert not [name for name in board.cpu.features if name.startswith("avx512") or name == "avxvnni"]
    assert board.is_host and board.tvm_target() is not None
