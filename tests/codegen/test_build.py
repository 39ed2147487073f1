from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.script import relax as R

from edgenext_tvm.board import load_board
from edgenext_tvm.codegen.build import build_library
from edgenext_tvm.codegen.manifest import load_manifest
from edgenext_tvm.codegen.meta import GoldenVector, ModelMeta
from edgenext_tvm.errors import UserError

META = ModelMeta("small", "small test model", "int8", input_scale=0.02, input_zero_point=3)


def unscheduled(func):
    return func


def xorshift_input(seed: int) -> np.ndarray:
    state, elements = seed, []
    for _ in range(48):
        state ^= (state << 13) & 0xFFFFFFFF
        state ^= state >> 17
        state ^= (state << 5) & 0xFFFFFFFF
        elements.append(state >> 24)
    return np.array(elements, np.uint8).view(np.int8).reshape(1, 4, 4, 3)


@pytest.fixture(scope="module")
def golden(small_model) -> list[GoldenVector]:
    vectors = [
        GoldenVector("RANDOM", seed=s, expected_logits=small_model.reference(xorshift_input(s))) for s in (1, 77)
    ]
    constant = np.full((1, 4, 4, 3), -128, np.int8)
    return [*vectors, GoldenVector("CONSTANT", value=-128, expected_logits=small_model.reference(constant))]


@pytest.fixture(scope="module")
def build(small_model, golden):
    def run(out: Path, board: str = "host", **changes):
        arguments = {"golden": golden, "schedule": unscheduled, "portable_schedule": unscheduled, **changes}
        return build_library(small_model.mod, META, load_board(board), out, **arguments)

    return run


@pytest.fixture(scope="module")
def host(build, tmp_path_factory):
    return build(tmp_path_factory.mktemp("build") / "small", extra_files={"recipe.json": b"{}", "a/b.txt": b"x"})


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_shared_library_gives_the_twins_bits(host, small_model, shared_model):
    library = shared_model(host.shared_library, "small")
    rng = np.random.default_rng(11)
    for _ in range(5):
        x = rng.integers(-128, 128, (1, 4, 4, 3), dtype=np.int8)
        np.testing.assert_array_equal(library.run(x, host.manifest.arena_bytes, 8), small_model.reference(x)[0])


@pytest.mark.parametrize("threads", ["1", "3"])
def test_the_program_passes_its_own_test(host, threads):
    done = subprocess.run(
        [host.program, "--selftest", "--threads", threads], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "3 of 3 vectors" in done.stdout


def test_a_wrong_golden_vector_fails_the_selftest(build, golden, tmp_path):
    wrong = golden[0].expected_logits.copy()
    wrong[0, 5] += 1
    result = build(tmp_path / "small", golden=[GoldenVector("RANDOM", seed=1, expected_logits=wrong)])
    done = subprocess.run([result.program, "--selftest"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "FAIL" in done.stdout + done.stderr


def test_the_library_holds_no_symbol_of_tvm_and_allocates_nothing(host):
    symbols = subprocess.run(["nm", host.static_library], capture_output=True, text=True, check=True).stdout
    assert "enx_model_small" in symbols
    names = {line.split()[-1] for line in symbols.splitlines() if line and not line.endswith(":")}
    assert not {name for name in names if "tvm" in name.lower()}
    assert not names & {"malloc", "free", "calloc", "realloc", "printf", "fopen"}


def test_the_manifest_describes_the_folder(host):
    manifest = load_manifest(host.folder)
    assert manifest == host.manifest
    files = tree(host.folder)
    assert set(manifest.files) | set(manifest.objects) == set(files) - {"manifest.json"}
    assert {"recipe.json", "a/b.txt", "lib/libsmall.a", "lib/libsmall.so", "bin/small", "c/kernels.c"} <= set(
        manifest.files
    )
    assert (manifest.kernel_calls, manifest.distinct_kernels) == (8, 6)
    assert manifest.macs == sum(layer.macs for layer in manifest.layers) == 16 * (3 * 8 + 4 * 8 * 16)
    assert manifest.arena_bytes == manifest.arena_lower_bound_bytes
    assert manifest.flash_bytes >= manifest.text_bytes + manifest.rodata_bytes > manifest.constant_bytes
    assert manifest.layers[2].layer == "block0.project"


def test_the_lowered_module_reads_back(host, small_model):
    mod = tvm.ir.load_json((host.folder / "lowered.json").read_text())
    tvm.ir.assert_structural_equal(mod, small_model.mod)


def test_two_builds_in_different_folders_are_byte_identical(host, build, tmp_path):
    other = build(tmp_path / "elsewhere" / "with_another_name", extra_files={"recipe.json": b"{}", "a/b.txt": b"x"})
    assert tree(other.folder) == tree(host.folder)


def test_no_path_of_this_machine_is_in_the_build(host):
    needle = str(host.folder.parent).encode()
    assert [name for name, content in tree(host.folder).items() if needle in content] == []


def test_the_c_folder_builds_with_cmake_and_gives_the_same_bits(host, tmp_path):
    def cmake(*arguments):
        subprocess.run(["cmake", *arguments], check=True, capture_output=True)

    flags = "-Wall -Wextra -Werror"
    cmake("-S", str(host.c_sources), "-B", str(tmp_path), "-G", "Ninja", f"-DCMAKE_C_FLAGS={flags}")
    cmake("--build", str(tmp_path), "-j", "1")
    subprocess.run(["ctest", "--test-dir", str(tmp_path)], check=True, capture_output=True)


def test_a_build_replaces_an_earlier_one(host, build, tmp_path):
    shutil.copytree(host.folder, tmp_path / "small")
    second = build(tmp_path / "small", golden=[])
    assert not (second.folder / "recipe.json").exists()
    assert not (second.folder / "c" / "small_golden.c").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["small"]


@pytest.mark.parametrize("foreign", ["folder", "file"])
def test_what_is_not_a_build_is_never_replaced(build, tmp_path, foreign):
    out = tmp_path / "thesis"
    if foreign == "folder":
        out.mkdir()
        (out / "chapter1.tex").write_text("years of work")
        message = "exists and is not a build folder"
    else:
        out.write_text("years of work")
        message = "is a file; give the name of a folder"
    with pytest.raises(UserError, match=message):
        build(out)
    assert "years of work" in ((out / "chapter1.tex") if foreign == "folder" else out).read_text()


class Interrupt(dict):
    """Extra files that stop the build after everything was compiled."""

    def __init__(self, stop):
        super().__init__({"x": b""})
        self.stop = stop

    def items(self):
        self.stop()
        return super().items()


def test_an_error_in_the_middle_leaves_the_earlier_build_and_nothing_else(host, build, tmp_path):
    shutil.copytree(host.folder, tmp_path / "small")

    def fail():
        raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match="disk on fire"):
        build(tmp_path / "small", extra_files=Interrupt(fail))
    assert tree(tmp_path / "small") == tree(host.folder)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["small"]


def test_a_killed_build_leaves_no_folder_and_the_next_one_cleans_up(build, small_model, tmp_path):
    (tmp_path / "mod.json").write_text(tvm.ir.save_json(small_model.mod))
    script = f"""
import os, signal, tvm
from pathlib import Path
from edgenext_tvm.board import load_board
from edgenext_tvm.codegen.build import build_library
from edgenext_tvm.codegen.meta import ModelMeta
class Kill(dict):
    def items(self):
        os.kill(os.getpid(), signal.SIGKILL)
mod = tvm.ir.load_json(Path({str(tmp_path / "mod.json")!r}).read_text())
build_library(mod, ModelMeta("small", "small", "int8"), load_board("host"), {str(tmp_path / "out" / "small")!r},
              schedule=lambda f: f, portable_schedule=lambda f: f, extra_files=Kill(x=b""))
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = [p.name for p in (tmp_path / "out").iterdir()]
    assert len(left) == 1 and left[0].startswith(".small.new-")
    build(tmp_path / "out" / "small")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["small"]


def chain_golden(chain) -> list[GoldenVector]:
    inputs = {-128: np.full((1, 16, 16, 3), -128, np.int8), 100: np.full((1, 16, 16, 3), 100, np.int8)}
    index = np.arange(16 * 16 * 3, dtype=np.uint32)
    gradient = ((index * 40503) >> 7).astype(np.uint8).view(np.int8).reshape(1, 16, 16, 3)
    return [
        *(GoldenVector("CONSTANT", value=v, expected_logits=chain.reference(x)) for v, x in inputs.items()),
        GoldenVector("GRADIENT", seed=40503, expected_logits=chain.reference(gradient)),
    ]


def selftest(program: Path, *launcher: str) -> None:
    done = subprocess.run([*launcher, str(program), "--selftest"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 of 3 vectors" in done.stdout


def test_the_projects_kernels_and_schedules_give_the_twins_bits(kernel_chain, shared_model, tmp_path):
    golden = chain_golden(kernel_chain)
    result = build_library(kernel_chain.mod, META, load_board("host"), tmp_path / "chain", golden)
    selftest(result.program)
    rng = np.random.default_rng(2)
    library = shared_model(result.shared_library, "small")
    for _ in range(3):
        x = rng.integers(-128, 128, (1, 16, 16, 3), dtype=np.int8)
        expected = kernel_chain.reference(x)[0]
        assert len(np.unique(expected)) > 5
        np.testing.assert_array_equal(library.run(x, result.manifest.arena_bytes, 10), expected)
    # the portable sources mean the same
    c = result.c_sources
    sources = [*c.glob("*.c"), *c.glob("runtime/src/*.c"), *c.glob("runtime/cli/*.c")]
    portable = tmp_path / "portable"
    include = [f"-I{c / 'runtime' / folder}" for folder in ("include", "src", "cli")]
    flags = ["-std=c99", "-O1", "-Wall", "-Werror", "-ffp-contract=off", "-DENX_NO_THREADS"]
    subprocess.run(["cc", *flags, *include, *map(str, sources), "-lm", "-o", str(portable)], check=True)
    selftest(portable)


@pytest.mark.qemu
@pytest.mark.parametrize("board", ["rpi4", "rpi2"])
def test_the_projects_kernels_give_the_same_bits_on_arm(board, kernel_chain, tmp_path):
    golden = chain_golden(kernel_chain)
    result = build_library(kernel_chain.mod, META, load_board(board), tmp_path / "chain", golden)
    run = load_board(board).run
    selftest(result.program, shutil.which(run.qemu), "-cpu", run.qemu_cpu)


def test_float_operators_without_a_kernel_of_ours_compile_too(shared_model, tmp_path):
    rng = np.random.default_rng(4)
    weights = [rng.normal(0, 0.3, shape).astype(np.float32) for shape in ((24, 600), (600, 10))]
    x = rng.normal(0, 1, (1, 4, 4, 24)).astype(np.float32)
    bb = relax.BlockBuilder()
    param = relax.Var("x", R.Tensor(x.shape, "float32"))
    with bb.function("main", [param]):
        with bb.dataflow():
            hidden = bb.emit(relax.op.matmul(bb.emit(relax.op.reshape(param, (16, 24))), relax.const(weights[0])))
            pooled = bb.emit(relax.op.mean(bb.emit(relax.op.nn.softmax(hidden)), axis=0, keepdims=True))
            out = bb.emit_output(bb.emit(relax.op.matmul(pooled, relax.const(weights[1]))))
        bb.emit_func_output(out)
    mod = relax.transform.LegalizeOps()(bb.finalize())
    meta = ModelMeta("floats", "float islands", "float32")
    result = build_library(mod, meta, load_board("host"), tmp_path / "floats")
    hidden = x.reshape(16, 24).astype(np.float64) @ weights[0]
    softmax = np.exp(hidden - hidden.max(axis=1, keepdims=True))
    expected = (softmax / softmax.sum(axis=1, keepdims=True)).mean(axis=0) @ weights[1]
    got = shared_model(result.shared_library, "floats").run(x, result.manifest.arena_bytes, 10)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert {layer.kernel for layer in result.manifest.layers} == {"generic"}
