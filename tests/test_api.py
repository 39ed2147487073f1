"""The Python front door: what compiles besides a variant, and that a failed compilation destroys nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgenext_tvm.api import (
    bench_build,
    compile_model,
    count_build,
    default_out,
    profile_build,
    run_build,
    verify_build,
)
from edgenext_tvm.board import load_board
from edgenext_tvm.errors import UserError
from edgenext_tvm.paths import EXAMPLES
from edgenext_tvm.verify.build_folder import open_build


def test_builds_without_a_folder_go_to_out() -> None:
    assert default_out("edgenext_small", load_board("rpi4")) == Path("out/edgenext_small-rpi4")
    assert default_out("some/my-model.onnx", load_board("rpi5")) == Path("out/my_model-rpi5")


def test_a_build_runs_and_is_timed_from_python(host_build: Path) -> None:
    (answer,) = run_build(host_build, [EXAMPLES / "ship.ppm"], top=2)
    assert len(answer["top"]) == 2 and answer["file"].endswith("ship.ppm")
    assert bench_build(host_build, repeat=3).repeat == 3
    assert profile_build(host_build, repeat=1)["total_us"] > 0


def test_a_failed_compilation_leaves_the_earlier_build(tmp_path: Path, host_build: Path) -> None:
    before = {path: path.read_bytes() for path in host_build.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="no images at /nowhere"):
        compile_model("edgenext_xx_small", calibration="/nowhere", out=host_build)
    assert {path: path.read_bytes() for path in host_build.rglob("*") if path.is_file()} == before


def test_a_folder_that_is_no_build_is_not_overwritten(tmp_path: Path, host_build: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="exists and is not a build folder"):
        compile_model("edgenext_xx_small", input_size=64, recipe=host_build / "recipe.json", out=tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.slow
def test_a_saved_program_compiles_to_the_same_constants(host_build: Path, tmp_path: Path) -> None:
    result = compile_model(str(host_build / "program.pt2"), out=tmp_path / "build")
    assert result.selftest is True
    assert result.manifest.constants_sha256 == open_build(host_build).manifest.constants_sha256
    assert verify_build(result.build_dir, "synthetic:2").compared_with == "QDQ program"


@pytest.mark.qemu
def test_instructions_are_counted_by_kernel(rpi4_build: Path) -> None:
    counts = count_build(rpi4_build)
    kernels = sum(count for name, count in counts.by_function.items() if name.startswith("enx_edgenext_xx_small_"))
    assert counts.total >= kernels > 0.99 * counts.total
    assert count_build(rpi4_build) == counts


def test_instructions_of_a_host_build_are_refused(host_build: Path) -> None:
    with pytest.raises(UserError, match="qemu"):
        count_build(host_build)
