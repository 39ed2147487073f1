"""Comparison of int8 with float32: what the float32 build is made from, and which builds a stored check speaks of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgenext_tvm.board import load_board
from edgenext_tvm.budget.choose_wide import Goal
from edgenext_tvm.codegen.manifest import Manifest
from edgenext_tvm.compiler import CompileSettings
from edgenext_tvm.tune.check_float import float32_settings, recorded_check
from edgenext_tvm.tune.manifest import FloatCheck, new_manifest

XXS = "edgenext_xx_small"
CHECK = FloatCheck(model=XXS, input_size=64, int8=1.0, float32=3.0, unit="s", how="by hand", date="2026-01-01")


@pytest.fixture
def settings(tmp_path: Path) -> CompileSettings:
    board = load_board("host")
    logs = tmp_path / "logs"
    logs.mkdir()
    manifest = new_manifest(board, "this machine", "s", "2026-01-01")
    manifest.checks = (CHECK,)
    manifest.save(logs)
    return CompileSettings(XXS, board, tmp_path / "build", tuning_logs=logs)


def build(size: int = 64, precision: str = "int8", *dtypes: str) -> Manifest:
    recipe: dict[str, Any] = {"activations": {str(i): {"dtype": dtype} for i, dtype in enumerate(dtypes)}}
    return Manifest.model_construct(
        model=XXS, precision=precision, input_shape=(1, size, size, 3), recipe=recipe if dtypes else {}
    )


def test_a_stored_check_speaks_of_int8_builds_of_its_model_and_size(settings: CompileSettings) -> None:
    assert recorded_check(settings, build(64, "int8", "int8", "int8")) == CHECK
    assert recorded_check(settings, build(96, "int8", "int8", "int8")) is None
    assert recorded_check(settings, build(64, "float32")) is None


def test_a_stored_check_does_not_speak_of_builds_with_int16_tensors(settings: CompileSettings) -> None:
    assert recorded_check(settings, build(64, "int8", "int8", "int16")) is None


@pytest.mark.parametrize(
    "quantized", [{"goal": Goal(sqnr_db=34), "budget_images": "synthetic:4"}, {"recipe": Path("recipe.json")}]
)
def test_float32_is_built_without_what_quantizes(settings: CompileSettings, quantized: dict[str, Any]) -> None:
    given = CompileSettings(XXS, settings.board, settings.out, input_size=64, max_arena_kib=300, **quantized)
    made = float32_settings(given, settings.out / "float32")
    assert made == CompileSettings(XXS, settings.board, settings.out / "float32", input_size=64, precision="float32")
