"""What accuracy is measured on: a build with its float weights, its recipe and its lowered module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import tvm
from torch import nn

from edgenext_tvm.board import load_board
from edgenext_tvm.compiler import CompileSettings, Progress, Stages, compile_stages
from edgenext_tvm.errors import UserError
from edgenext_tvm.model.checkpoint import load_model
from edgenext_tvm.model.config import VARIANTS
from edgenext_tvm.quantize.preprocess import Preprocessing
from edgenext_tvm.quantize.recipe import Recipe
from edgenext_tvm.verify.build_folder import LOWERED_FILE, RECIPE_FILE, WEIGHTS_FILE, BuildFolder, open_build
from edgenext_tvm.verify.float_model import input_size
from edgenext_tvm.verify.reference import load_lowered


@dataclass(frozen=True)
class MeasuredModel:
    """A build and what it was made of. float_model: before folding, in eval mode. recipe: None for float32 builds."""

    build: BuildFolder
    float_model: nn.Module
    preprocessing: Preprocessing
    recipe: Recipe | None

    @cached_property
    def lowered(self) -> tvm.IRModule:
        return load_lowered(self.build.path / LOWERED_FILE)

    def quantized(self) -> Recipe:
        """The recipe. Raises UserError for a float32 build."""
        if self.recipe is None:
            raise UserError(f"{self.build.path} was compiled with --precision float32: nothing in it is quantized")
        return self.recipe


def open_measured(build_dir: str | Path) -> MeasuredModel:
    """Opens a build folder. Raises UserError when it has no float weights, with which to compare."""
    build = open_build(build_dir)
    weights, recipe = build.file(WEIGHTS_FILE), build.file(RECIPE_FILE)
    preprocessing = build.manifest.load_preprocessing()
    if weights is None or preprocessing is None:
        raise UserError(
            f"{build.path} was compiled from a program that is already quantized: there are no float weights to "
            "compare with; compile the variant with --checkpoint, or use `edgenext-tvm verify`"
        )
    manifest = build.manifest
    float_model = load_model(weights, manifest.model, manifest.num_classes, input_size(build))
    return MeasuredModel(build, float_model, preprocessing, None if recipe is None else Recipe.load(recipe))


@contextmanager
def measured_model(
    target: str,
    *,
    checkpoint: str | None = None,
    input_size: int | None = None,
    recipe: str | None = None,
    calibration: str | None = None,
    progress: Progress | None = None,
) -> Iterator[MeasuredModel]:
    """Opens a build folder, or compiles a variant for this machine into a folder that is gone afterwards."""
    given = {"--checkpoint": checkpoint, "--input-size": input_size, "--recipe": recipe, "--calibration": calibration}
    named = [option for option, value in given.items() if value is not None]
    if target not in VARIANTS:
        if named:
            raise UserError(
                f"{target} is a build folder, in which all is decided; leave out {', '.join(named)}, or give a "
                f"variant ({', '.join(VARIANTS)})"
            )
        if not Path(target).exists():
            raise UserError(
                f"no build folder at {target}, and no variant of that name; variants: {', '.join(VARIANTS)}"
            )
        yield open_measured(target)
        return
    with TemporaryDirectory(prefix="edgenext-tvm-accuracy-") as folder:
        settings = CompileSettings(
            target,
            load_board("host"),
            Path(folder) / "build",
            checkpoint=checkpoint,
            input_size=input_size,
            recipe=None if recipe is None else Path(recipe),
            calibration=calibration,
        )
        yield open_measured(compile_stages(settings, Stages(progress), quiet=True).folder)
