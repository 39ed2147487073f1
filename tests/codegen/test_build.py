from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tvm

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


def test_a_build_replaces_an_earlier_one(build, tmp_path):
    first = build(tmp_path / "small", extra_files={"old.txt": b"old"})
    second = build(tmp_path / "small", golden=[])
    assert first.folder == second.folder
    assert not (second.folder / "old.txt").exists()
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


def test_an_error_in_the_middle_leaves_the_earlier_build_and_nothing_else(build, tmp_path):
    before = tree(build(tmp_path / "small").folder)

    def fail():
        raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match="disk on fire"):
        build(tmp_path / "small", extra_files=Interrupt(fail))
    assert tree(tmp_path / "small") == before
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


@pytest.mark.qemu
@pytest.mark.parametrize("board", ["rpi4", "rpi2"])
def test_arm_programs_pass_their_selftest_under_emulation(board, build, tmp_path):
    result = build(tmp_path / "small", board=board)
    run = load_board(board).run
    command = [shutil.which(run.qemu), "-cpu", run.qemu_cpu, str(result.program), "--selftest"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((result.folder / "manifest.json").read_text())["board"] == board
