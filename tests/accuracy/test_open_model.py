"""What `accuracy` takes: a build with float weights, or a variant that is compiled and thrown away."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from edgenext_tvm.accuracy.open_model import measured_model, open_measured
from edgenext_tvm.errors import UserError
from edgenext_tvm.model.edgenext import EdgeNeXt


def test_a_build_brings_its_float_model_recipe_and_module(host_build: Path) -> None:
    with measured_model(str(host_build)) as model:
        assert isinstance(model.float_model, EdgeNeXt) and not model.float_model.training
        assert model.float_model(torch.zeros(1, 3, 64, 64)).shape == (1, model.build.manifest.num_classes)
        assert model.quantized().input_size == 64
        assert model.lowered["main"] is not None
    assert host_build.is_dir()


@pytest.mark.slow
def test_a_variant_is_compiled_and_gone_afterwards() -> None:
    stages: list[str] = []
    with measured_model(
        "edgenext_xx_small", input_size=64, calibration="synthetic:2", progress=lambda stage, *_: stages.append(stage)
    ) as model:
        path = model.build.path
        assert path.is_dir() and model.build.board.is_host and model.quantized().calibration.num_images == 2
    assert stages[-1] == "build" and not path.exists()


def test_options_of_a_variant_are_refused_for_a_build(host_build: Path) -> None:
    with (
        pytest.raises(UserError, match="is a build folder, in which all is decided; leave out --recipe"),
        measured_model(str(host_build), recipe="recipe.json"),
    ):
        pass


def test_what_is_neither_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match="no build folder at .*none, and no variant of that name; variants: edgenext_"),
        measured_model(str(tmp_path / "none")),
    ):
        pass


def test_a_build_without_float_weights_is_refused(host_build: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(host_build, tmp_path / "build"))
    (copied / "model.safetensors").unlink()
    with pytest.raises(UserError, match="compiled from a program that is already quantized: there are no float weigh"):
        open_measured(copied)
