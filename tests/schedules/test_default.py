from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm.target import Target

from edgenext_tvm.codegen.elf_size import read_size
from edgenext_tvm.codegen.plain_c import PlainKernel, lower_kernel, object_bytes
from edgenext_tvm.errors import UserError
from edgenext_tvm.kernels import (
    Add,
    Conv2d,
    Dense,
    Depthwise,
    GlobalAvgPool,
    Kernel,
    LayerNorm,
    Lut,
    XcaApply,
    XcaScores,
    kernel_of,
)
from edgenext_tvm.kernels.run_host import compile_on_host
from edgenext_tvm.kernels.sample_inputs import PATTERNS, sample_inputs
from edgenext_tvm.schedules import instruction_level, schedule_kernel, space_of
from edgenext_tvm.schedules.x86 import NEEDED as AVX512

FUSED_MULTIPLY_ADD = re.compile(
    r"^\s*(vf[n]?m(add|sub)\w*|fn?m(add|sub)|fml[as]\w*|vfn?m[as](\.f32)?|vml[as]\.f32)\b", re.MULTILINE
)
# Branches to code outside the function: TVM kernels never tail-call, so only calls count.
CALL = re.compile(r"^\s*(callq?|bl|blr|blx)\s+(\S+)", re.MULTILINE)


def lower(kernel: Kernel, isa: str, target: Target, name: str = "kernel") -> PlainKernel:
    inputs = len(kernel.input_types())
    written = list(range(inputs, inputs + len(kernel.output_types())))
    merged = {}
    if kernel.inplace_input >= 0:
        merged = {inputs: kernel.inplace_input}
        written.append(kernel.inplace_input)
    return lower_kernel(schedule_kernel(kernel.prim_func(name), isa), name, target, written, merged)


def assembly_of(kernels: Sequence[PlainKernel], target: Target) -> str:
    mod = tvm.IRModule({kernel.name: kernel.func for kernel in kernels})
    return tvm.get_global_func("target.build.llvm")(mod, target).inspect_source("asm")


@pytest.mark.parametrize("isa", ["x86_64", "aarch64", "armv7", "c"])
def test_scheduled_kernel_gives_the_twins_bits(awkward_kernel: Kernel, isa: str) -> None:
    func = schedule_kernel(awkward_kernel.prim_func("kernel"), isa)
    run = compile_on_host(awkward_kernel, func)
    for pattern in PATTERNS:
        inputs = sample_inputs(awkward_kernel, 1, pattern)
        np.testing.assert_array_equal(run(inputs), awkward_kernel.reference(*inputs), err_msg=pattern)


def test_attributes_and_signature_survive(awkward_kernels: list[Kernel]) -> None:
    for kernel in awkward_kernels:
        func = kernel.prim_func("kernel")
        scheduled = schedule_kernel(func, "aarch64")
        assert kernel_of(scheduled) == kernel
        assert dict(scheduled.attrs) == dict(func.attrs)
        assert [p.name for p in scheduled.params] == [p.name for p in func.params]


def test_no_kernel_needs_a_hidden_workspace(awkward_kernels: list[Kernel], isa_and_target) -> None:
    isa, target = isa_and_target
    for kernel in awkward_kernels:
        assert lower(kernel, isa, target).hoisted_bytes == (), kernel


def test_large_kernels_split_into_enough_chunks() -> None:
    target = Target({"kind": "llvm"})
    for kernel in (
        Conv2d(1, 256, 256, 3, 24, 4, 4, 4, 4),
        Dense(64, 168, 672, "lut"),
        Dense(1, 168, 1000, "none", "float32"),
        Depthwise(1, 8, 8, 168, 9, 9, 1, 1, 4, 4, 4, 4),
        LayerNorm(64, 168),
        Lut(64, 168),
        Add(64, 168),
        XcaApply(64, 168, 4),
    ):
        assert lower(kernel, "aarch64", target).extent >= 8, kernel
    assert lower(XcaScores(64, 168, 4), "aarch64", target).extent == 4


def test_machine_code_has_no_fused_multiply_add_and_no_calls(awkward_kernels: list[Kernel], isa_and_target) -> None:
    isa, target = isa_and_target
    lowered = [lower(kernel, isa, target, f"kernel{i}") for i, kernel in enumerate(awkward_kernels)]
    assembly = assembly_of(lowered, target)
    assert "kernel0:" in assembly
    assert [m.group(1) for m in FUSED_MULTIPLY_ADD.finditer(assembly)] == []
    called = {m.group(2) for m in CALL.finditer(assembly)}
    memory = re.compile(r"(mem(set|cpy)|__aeabi_mem(set|cpy|clr)[48]?)(@PLT)?")
    assert [name for name in sorted(called) if not memory.fullmatch(name)] == []


@pytest.mark.parametrize("name", ["vfmadd231ps", "vfmadd213ss", "fmla", "fmadd", "fnmsub", "vfma.f32", "vmla.f32"])
def test_the_pattern_finds_fused_multiply_adds(name: str) -> None:
    assert FUSED_MULTIPLY_ADD.search(f"\t{name}\tv0.4s, v1.4s, v2.4s")
    assert not FUSED_MULTIPLY_ADD.search("\tmla\tv0.4s, v1.4s, v2.4s\n\tvmla.i32\tq0, q1, q2\n\tsmlal\tv0.4s")


def test_llvm_would_fuse_a_product_that_feeds_a_sum(isa_and_target) -> None:
    """The guard above is not vacuous: without the clamp between them, these targets do fuse."""
    isa, target = isa_and_target
    if isa == "armv7":
        pytest.skip("LLVM keeps NEON products and sums apart on Armv7")
    from tvm import te

    a, b, c = (te.placeholder((64,), "float32", name=name) for name in "abc")
    out = te.compute((64,), lambda i: a[i] * b[i] + c[i])
    func = lower_kernel(te.create_prim_func([a, b, c, out]), "kernel", target, [3])
    assert FUSED_MULTIPLY_ADD.search(assembly_of([func], target))


def xx_small_kernels() -> list[Kernel]:
    """The distinct kernels of EdgeNeXt-XX-Small at 256x256."""
    kernels: list[Kernel] = [Conv2d(1, 256, 256, 3, 24, 4, 4, 4, 4)]
    side, previous = 64, 24
    for c, k, splits in ((24, 3, 0), (48, 5, 2), (88, 7, 3), (168, 9, 4)):
        if splits:
            kernels += [LayerNorm(side * side, previous), Conv2d(1, side, side, previous, c, 2, 2, 2, 2)]
            side //= 2
        t, pad = side * side, k // 2
        kernels += [Depthwise(1, side, side, c, k, k, 1, 1, pad, pad, pad, pad), LayerNorm(t, c)]
        kernels += [Dense(t, c, 4 * c, "lut"), Dense(t, 4 * c, c, "residual")]
        if splits:
            width = -(-c // splits)
            for i in range(splits - 1):
                channels = {"x_channels": c if i == 0 else width, "y_channels": c, "y_offset": i * width}
                kernels.append(Depthwise(1, side, side, width, 3, 3, 1, 1, 1, 1, 1, 1, **channels, inplace=i > 0))
                kernels.append(Add(t, width, c, i * width, c, i * width))
            rest, start = c - (splits - 1) * width, (splits - 1) * width
            kernels += [Lut(t, rest, c, start, c, start, inplace=True), Dense(t, c, 3 * c), XcaScores(t, c, 4)]
            kernels += [XcaApply(t, c, 4), Dense(t, c, c, "residual")]
        previous = c
    kernels += [GlobalAvgPool(1, side, side, 168), LayerNorm(1, 168), Dense(1, 168, 1000, "none", "float32")]
    return list(dict.fromkeys(kernels))


@pytest.mark.parametrize("name", ["cortex-a72"])
def test_a_whole_network_stays_small(name: str, targets, tmp_path: Path) -> None:
    check_network(*targets[name], tmp_path / "kernels.o")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["znver4", "cortex-a76", "cortex-a7"])
def test_a_whole_network_stays_small_everywhere(name: str, targets, tmp_path: Path) -> None:
    check_network(*targets[name], tmp_path / "kernels.o")


def check_network(isa: str, target: Target, path: Path) -> None:
    lowered = [lower(kernel, isa, target, f"kernel{i}") for i, kernel in enumerate(xx_small_kernels())]
    assert len(lowered) > 40
    path.write_bytes(object_bytes(lowered, target))
    assert read_size(path).text < 150_000


def test_unknown_instruction_set_names_the_known_ones() -> None:
    with pytest.raises(UserError, match="no schedules for instruction set 'riscv64'; known ones: x86_64, aarch64"):
        schedule_kernel(Dense(1, 8, 8).prim_func("k"), "riscv64")


@pytest.mark.parametrize(
    ("isa", "features", "special"),
    [("aarch64", ["neon", "dotprod"], "arm64_dotprod"), ("x86_64", sorted(AVX512), "x86_vnni")],
)
def test_wide_tensors_have_special_code_too(isa, features, special) -> None:
    def family(kernel: Kernel) -> str:
        return space_of(kernel.prim_func("k"), isa, features).family.split(".")[0]

    assert family(Dense(8, 16, 32, "residual", "int16", "int8", "int16")) == special
    assert family(Conv2d(1, 8, 8, 8, 16, 2, 2, 2, 2, out_dtype="int16")) == special
    assert family(Dense(8, 16, 32, x_dtype="int16")) == special
    assert family(Depthwise(1, 8, 8, 16, 3, 3, 1, 1, 1, 1, 1, 1, out_dtype="int16")) == special
    assert family(LayerNorm(16, 24, x_dtype="int16")) == special


@pytest.mark.parametrize("features", [["avx2"], ["avx2", "avxvnni"]])
def test_wide_tensors_have_portable_code_where_there_is_no_other(features) -> None:
    kernel = Dense(8, 16, 32, "residual", "int16", "int8", "int16")
    assert space_of(kernel.prim_func("k"), "x86_64", features).family == "x86_64.dense"
    assert space_of(kernel.prim_func("k"), "armv7", ["neon"]).family == "armv7.dense"


CASCADE_LAKE = ["avx2", "avx512f", "avx512bw", "avx512vl", "avx512vnni"]


@pytest.mark.parametrize(
    ("isa", "features", "level", "family"),
    [
        ("x86_64", [*CASCADE_LAKE, "avx512vbmi"], "avx512vnni", "x86_vnni"),
        ("x86_64", CASCADE_LAKE, "avxvnni", "x86_avxvnni"),
        ("x86_64", ["avx2", "avxvnni"], "avxvnni", "x86_avxvnni"),
        ("x86_64", ["avx2"], "avx2", "x86_avx2"),
        ("x86_64", [], "x86_64", "x86_64"),
        ("aarch64", ["neon", "dotprod"], "dotprod", "arm64_dotprod"),
        ("aarch64", ["neon"], "neon", "arm64_neon"),
        ("armv7", ["neon"], "neon", "armv7_neon"),
        ("armv7", [], "armv7", "armv7"),
    ],
)
def test_the_instruction_level_names_the_family_of_the_kernels(isa, features, level, family):
    assert instruction_level(isa, features) == level
    func = Dense(t=8, ci=16, co=32).prim_func("dense")
    assert space_of(func, isa, features).family.split(".")[0] == family
