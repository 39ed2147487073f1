"""The real network as a C library: what it links against, that it allocates nothing, that sanitizers stay silent."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgenext_tvm.codegen.manifest import load_manifest
from edgenext_tvm.verify.reference import load_lowered, run_reference

REPOSITORY = Path(__file__).parents[1]
COUNTER = REPOSITORY / "tests/runtime_c/count_allocations.c"
ALLOWED_UNDEFINED = {"memcpy", "memset", "memmove", "sqrtf", "_GLOBAL_OFFSET_TABLE_"}
SANITIZE = "-fsanitize=address,undefined -fno-sanitize-recover=all"
NUM_GOLDEN = 4


def run(program: Path, *arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=False, cwd=cwd)


def nm(path: Path) -> list[tuple[str, str]]:
    listing = subprocess.run(["nm", path], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in listing.splitlines() if line and not line.endswith(":")]
    return [(row[-2], row[-1]) for row in rows if len(row) >= 2]


def cmake(source: Path, build: Path, *options: str) -> None:
    for command in (
        ["cmake", "-S", source, "-B", build, *options],
        ["cmake", "--build", build, "--parallel", "2"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def sanitized(host_build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program built from the folder of C sources alone, under AddressSanitizer and UBSan."""
    build = tmp_path_factory.mktemp("sanitized")
    cmake(
        host_build / "c", build, f"-DCMAKE_C_FLAGS={SANITIZE} -Wall -Werror", f"-DCMAKE_EXE_LINKER_FLAGS={SANITIZE}",
        "-DCMAKE_BUILD_TYPE=RelWithDebInfo",
    )  # fmt: skip
    return build / "edgenext_xx_small"


def test_the_library_needs_nothing_but_memcpy_memset_and_pthreads(host_build: Path) -> None:
    symbols = nm(host_build / "lib/libedgenext_xx_small.a")
    defined = {name for kind, name in symbols if kind not in "Uuw"}
    undefined = {name for kind, name in symbols if kind == "U"} - defined
    assert {name for name in undefined if not name.startswith("pthread_")} <= ALLOWED_UNDEFINED, undefined


def test_the_library_has_no_mutable_data(host_build: Path) -> None:
    writable = [name for kind, name in nm(host_build / "lib/libedgenext_xx_small.a") if kind in "DdBbC"]
    # relocated tables of constants carry local names in .data.rel.ro; nothing else may be writable
    sections = subprocess.run(
        ["objdump", "-t", host_build / "lib/libedgenext_xx_small.a"], capture_output=True, text=True, check=True
    ).stdout
    mutable = [
        line.split()[-1]
        for line in sections.splitlines()
        if ("\t" in line) and line.split("\t")[0].split()[-1].startswith((".data", ".bss"))
        and not line.split("\t")[0].split()[-1].startswith(".data.rel.ro")
        and line.split()[-1] in writable
    ]  # fmt: skip
    assert mutable == []


def test_inference_allocates_nothing(host_build: Path, tmp_path: Path) -> None:
    """The program, linked against an allocator that counts its calls between entry and exit of each inference."""
    sources = host_build / "c"
    program = tmp_path / "counted"
    generated = [sources / f"edgenext_xx_small_{part}.c" for part in ("cli", "golden")]
    wraps = "-Wl,--wrap=enx_run,--wrap=enx_preprocess_rgb8"
    command = [
        "cc", "-std=c99", "-D_POSIX_C_SOURCE=200809L", "-O1", f"-I{sources}", f"-I{sources}/runtime/include",
        f"-I{sources}/runtime/src", wraps, *generated, *sorted((sources / "runtime/cli").glob("*.c")), COUNTER,
        host_build / "lib/libedgenext_xx_small.a", "-lm", "-lpthread", "-o", program,
    ]  # fmt: skip
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = run(program, "--repeat", 3, "--threads", 2, REPOSITORY / "examples/ship.ppm")
    assert result.returncode == 0, result.stderr
    # one preprocessing and three inferences
    assert "inferences 4 inside 0 outside some" in result.stderr


def test_portable_c_under_sanitizers_gives_the_golden_bits(sanitized: Path) -> None:
    for threads in (1, 2):
        result = run(sanitized, "--selftest", "--threads", threads)
        assert result.returncode == 0, result.stdout + result.stderr
        assert f"{NUM_GOLDEN} of {NUM_GOLDEN} vectors" in result.stdout


def test_portable_c_and_the_library_agree_with_the_twins(sanitized: Path, host_build: Path, tmp_path: Path) -> None:
    shape = tuple(load_manifest(host_build).input_shape)
    generator = np.random.default_rng(7)
    x = generator.integers(-128, 128, shape).astype(np.int8)
    np.save(tmp_path / "x.npy", x)
    expected = run_reference(load_lowered(host_build / "lowered.json"), x)
    for program in (sanitized, host_build / "bin/edgenext_xx_small"):
        for threads in (1, 2):
            result = run(program, tmp_path / "x.npy", "--threads", threads, "--dump", tmp_path / "y.npy")
            assert result.returncode == 0, result.stderr
            np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), expected)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("truncated.ppm", b"P6\n64 64\n255\n" + b"\x00" * 100),
        ("oversized.ppm", b"P6\n999999 999999\n255\n"),
        ("zero.ppm", b"P6\n0 0\n255\n"),
        ("notes.txt", b"not an image\n"),
        ("empty.ppm", b""),
        ("truncated.npy", b"\x93NUMPY\x01\x00\x76\x00{'descr': '|i1', 'fortran_order': False, 'shape': (1, 64"),
    ],
)
def test_hostile_input_is_refused_cleanly(sanitized: Path, tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    result = run(sanitized, tmp_path / name, "--dump", tmp_path / "logits.npy")
    assert result.returncode == 2, result.stdout + result.stderr
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert name in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]
