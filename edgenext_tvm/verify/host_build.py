"""A second build of a build's model for this machine: what other targets' results must equal bit for bit."""

from __future__ import annotations

from pathlib import Path

import tvm

from edgenext_tvm.board import load_board
from edgenext_tvm.codegen.build import build_library
from edgenext_tvm.codegen.meta import ModelMeta
from edgenext_tvm.verify.build_folder import BOARD_FILE, BuildFolder, open_build
from edgenext_tvm.verify.quantization import input_quantization


def build_for_host(build: BuildFolder, lowered: tvm.IRModule, out: Path) -> BuildFolder:
    """Builds `lowered`, the module that `build` was made of, at `out` for this machine."""
    host = load_board("host")
    files = {BOARD_FILE: host.model_dump_json().encode()}
    build_library(lowered, model_meta(build, lowered), host, out, extra_files=files)
    return open_build(out)


def model_meta(build: BuildFolder, lowered: tvm.IRModule) -> ModelMeta:
    """What code generation was told of the model; without recipe and weights, which leave no trace in code."""
    manifest = build.manifest
    scale, zero_point = input_quantization(lowered) or (1.0, 0)
    return ModelMeta(
        name=manifest.name,
        model=manifest.model,
        precision=manifest.precision,
        input_scale=scale,
        input_zero_point=zero_point,
        preprocessing=manifest.load_preprocessing(),
    )
