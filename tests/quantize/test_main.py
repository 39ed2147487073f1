"""`python -m edgenext_tvm.quantize`."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from edgenext_tvm.quantize import Recipe
from edgenext_tvm.quantize.__main__ import main


def test_bundled_checkpoint_is_calibrated_and_evaluated(tmp_path: Path) -> None:
    output = tmp_path / "recipe.json"
    arguments = ["--images", "synthetic:2", "--output", str(output), "--input-size", "64", "--quiet"]
    result = CliRunner().invoke(main, [*arguments, "--evaluate", "synthetic:2", "--method", "minmax"])
    assert result.exit_code == 0, result.output
    assert "edgenext_xx_small at 64x64, 10 classes" in result.stdout
    assert f"97 int8 tensors -> {output}" in result.stdout
    assert "2 images: same first class" in result.stdout
    assert Recipe.load(output).observer.method == "minmax"


def test_mistake_is_one_line_on_stderr_and_exit_status_2(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["--images", str(tmp_path), "--output", str(tmp_path / "r.json"), "--quiet"])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: folder {tmp_path} holds no images; allowed: .jpg")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
