"""The sources compile without a warning everywhere, and the library needs nothing but libc's memcpy and memset."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from edgenext_tvm.paths import RUNTIME_C

SOURCES = sorted((RUNTIME_C / "src").glob("*.c"))
CLI = sorted((RUNTIME_C / "cli").glob("*.c"))
WARNINGS = ["-std=c99", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror"]
INCLUDES = [f"-I{RUNTIME_C / folder}" for folder in ("include", "src", "cli")]
ALLOWED = {"memcpy", "memset"}


def objects(folder, compiler, sources, *flags):
    for source in sources:
        command = [
            *compiler,
            *WARNINGS,
            *INCLUDES,
            *flags,
            "-c",
            str(source),
            "-o",
            str(folder / f"{source.stem}.o"),
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), f"{' '.join(command)}\n{done.stderr}"
    return [folder / f"{source.stem}.o" for source in sources]


def symbols(files, kinds):
    table = subprocess.run(["nm", *map(str, files)], capture_output=True, text=True, check=True).stdout
    return {m[2] for m in re.finditer(r"^\S*\s+([A-Za-z]) (\S+)$", table, re.M) if m[1] in kinds}


@pytest.mark.parametrize("flags", [(), ("-DENX_NO_THREADS",)], ids=["threads", "serial"])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_no_warnings_and_no_foreign_symbols(tmp_path, compiler, flags):
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is absent")
    files = objects(tmp_path, [compiler], SOURCES, *flags)
    foreign = symbols(files, "U") - symbols(files, "TDRB")
    assert {s for s in foreign if not s.startswith("pthread_")} <= ALLOWED
    assert any(s.startswith("pthread_") for s in foreign) == (flags == ())
    assert all(s.startswith("enx_") for s in symbols(files, "TDRB")), "every exported name carries the prefix"


@pytest.mark.parametrize("flags", [(), ("-DENX_NO_THREADS",)], ids=["threads", "serial"])
def test_the_library_has_no_mutable_data(tmp_path, flags):
    assert symbols(objects(tmp_path, ["gcc"], SOURCES, *flags), "DdBbC") == set()


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_the_command_line_program_has_no_warnings(tmp_path, compiler):
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is absent")
    objects(tmp_path, [compiler], CLI)


@pytest.mark.parametrize("header", ["enx.h", "enx_golden.h"])
def test_headers_stand_alone_in_c_and_in_cpp(header):
    path = str(RUNTIME_C / "include" / "enx" / header)
    subprocess.run(["gcc", *WARNINGS, *INCLUDES, "-fsyntax-only", "-x", "c", path], check=True)
    cpp = [w for w in WARNINGS if w != "-std=c99"]
    subprocess.run(["g++", "-std=c++11", *cpp, *INCLUDES, "-fsyntax-only", "-x", "c++", path], check=True)


def test_stack_frames_of_the_library_stay_small(tmp_path):
    """No frame above 512 bytes: a microcontroller's stack is a few KiB."""
    objects(tmp_path, ["gcc"], SOURCES, "-fstack-usage")
    usage = [line.split("\t") for su in tmp_path.glob("*.su") for line in su.read_text().splitlines()]
    assert len(usage) > 20
    assert {kind for _, _, kind in usage} <= {"static", "dynamic,bounded"}, (
        "no variable-length arrays, no alloca"
    )
    assert max(int(n) for _, n, _ in usage) <= 512
