"""Armv7 (32-bit) and AArch64 builds under emulation: the same bytes and the same logits as the host's."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zlib

import numpy as np
import pytest

from edgenext_tvm.paths import RUNTIME_C

pytestmark = pytest.mark.qemu
TARGETS = {
    "armv7": ("qemu-arm", ["-target", "arm-linux-musleabihf", "-mcpu=cortex_a7"]),
    "aarch64": ("qemu-aarch64", ["-target", "aarch64-linux-musl"]),
}
SIZES = [
    (1, 1, 8, 8),
    (1, 99, 8, 7),
    (333, 250, 64, 56),
    (64, 48, 256, 224),
    (300, 700, 36, 32),
    (2000, 3, 4, 4),
]


@pytest.fixture(scope="module", params=TARGETS)
def foreign(request, builds, compile_sources, build_cli):
    """(host digest, foreign digest, foreign CLI, foreign pool_stress, emulator)"""
    emulator, flags = TARGETS[request.param]
    if shutil.which(emulator) is None:
        pytest.skip(f"{emulator} is absent")
    zig = [sys.executable, "-m", "ziglang", "cc", *flags, "-static"]
    here, library = request.path.parent, sorted((RUNTIME_C / "src").glob("*.c"))
    warnings = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror"]
    probe = [*library, here / "preprocess_probe.c", here / "preprocess_digest.c"]
    host = compile_sources(builds / "digest_host", probe, "-O2", "-pthread")
    digest = compile_sources(builds / f"digest_{request.param}", probe, "-O2", compiler=zig)
    stress_sources = [*library, here / "tiny_model.c", here / "pool_stress.c"]
    stress = compile_sources(builds / f"stress_{request.param}", stress_sources, compiler=zig)
    return host, digest, build_cli(f"tiny_{request.param}", *warnings, compiler=zig), stress, emulator


def test_preprocessing_gives_the_hosts_bytes(foreign, xorshift, pillow):
    host, digest, _, _, emulator = foreign
    sizes = [str(v) for size in SIZES for v in size]
    outputs = [
        subprocess.run([*prefix, *sizes], capture_output=True, text=True, check=True).stdout
        for prefix in ([str(host)], [emulator, str(digest)])
    ]
    expected = []
    for width, height, resize, crop in SIZES:
        pixels = xorshift(width * 31 + height, width * height * 3).reshape(height, width, 3)
        expected.append(f"0 {zlib.crc32(pillow(pixels, resize, crop).tobytes()):08x}\n")
    assert outputs[0] == outputs[1] == "".join(expected)


def test_logits_are_the_hosts(foreign, cli, tmp_path):
    emulator, program = foreign[4], foreign[2]
    batch = np.random.default_rng(8).integers(0, 256, (3, 37, 53, 3), dtype=np.uint8)
    np.save(tmp_path / "batch.npy", batch)
    dumps = []
    for target, runner in ((cli, ()), (program, (emulator,))):
        result = target("--threads", 2, "--dump", tmp_path / "d.npy", tmp_path / "batch.npy", runner=runner)
        assert (result.code, result.err) == (0, "")
        dumps.append((tmp_path / "d.npy").read_bytes())
    assert dumps[0] == dumps[1]


def test_pools_work_there(foreign):
    done = subprocess.run([foreign[4], str(foreign[3]), "20"], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr
