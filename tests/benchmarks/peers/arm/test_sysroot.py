"""The emulated userland shows each core its own /proc/cpuinfo, and changes with its pins."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.peers.arm.cores import CORES
from benchmarks.peers.arm.sysroot import REQUIREMENTS, python_of_userland, root_of
from benchmarks.peers.environments import REQUIREMENTS as HOST_REQUIREMENTS


@pytest.fixture
def userland(tmp_path: Path) -> Path:
    programs = tmp_path / "userland-0" / "usr" / "bin"
    programs.mkdir(parents=True)
    (programs / "python3.11").write_text("the interpreter")
    (programs / "python3").symlink_to("python3.11")
    (programs / "python3.11-config").touch()
    (tmp_path / "userland-0" / "bin").symlink_to("usr/bin")
    return tmp_path / "userland-0"


def test_the_interpreter_is_the_program_and_no_link(userland: Path) -> None:
    assert python_of_userland(userland).name == "python3.11"


def test_every_core_sees_the_userland_and_its_own_cpuinfo(userland: Path) -> None:
    roots = {core.name: root_of(core, userland) for core in CORES}
    assert len(set(roots.values())) == len(CORES)
    for core in CORES:
        root = roots[core.name]
        assert (root / "usr" / "bin" / "python3.11").read_text() == "the interpreter"
        assert (root / "bin" / "python3.11").is_file()
        assert (root / "proc" / "cpuinfo").read_text() == core.cpuinfo()
        assert root_of(core, userland) == root


def _pins(file: Path) -> dict[str, str]:
    lines = (line.split("#")[0].strip() for line in file.read_text().splitlines())
    return dict(line.split("==") for line in lines if line)


def test_everything_is_pinned_and_onnxruntime_is_the_one_that_races_on_the_host() -> None:
    pins = _pins(REQUIREMENTS)
    assert set(pins) == {"onnxruntime", "ai-edge-litert", "numpy"}
    assert pins["onnxruntime"] == _pins(HOST_REQUIREMENTS / "onnxruntime.txt")["onnxruntime"]
