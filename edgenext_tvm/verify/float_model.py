"""The model that a build is measured against: the float weights where the build has them, else its QDQ program."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from edgenext_tvm.errors import UserError
from edgenext_tvm.model.checkpoint import load_model
from edgenext_tvm.quantize.convert import QuantizedProgram
from edgenext_tvm.verify.build_folder import ONNX_FILE, PROGRAM_FILE, WEIGHTS_FILE, BuildFolder

FLOAT_WEIGHTS = "float32 weights"

Logits = Callable[[np.ndarray], np.ndarray]
"""Float32 [N,S,S,3], normalised RGB, to float32 [N, num_classes]; N is 1 unless it has weights to run."""


def torch_logits(module: Callable[[torch.Tensor], torch.Tensor]) -> Logits:
    """A PyTorch classifier of [N,3,S,S] as a function of NumPy NHWC images."""

    def logits(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return module(torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))).numpy()

    return logits


def onnx_logits(path: Path) -> Logits:
    """An ONNX classifier of [1,3,S,S], run by ONNX's own reference evaluator: slow, and independent of TVM."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(onnx.load(str(path)))
    name = evaluator.input_names[0]

    def logits(x: np.ndarray) -> np.ndarray:
        (result,) = evaluator.run(None, {name: np.ascontiguousarray(x.transpose(0, 3, 1, 2))})
        return np.asarray(result, np.float32)

    return logits


def float_logits(build: BuildFolder) -> tuple[Logits, str]:
    """The function to compare with and its name: "float32 weights", "QDQ program" or "ONNX program"."""
    manifest = build.manifest
    weights, program, onnx_file = (build.file(name) for name in (WEIGHTS_FILE, PROGRAM_FILE, ONNX_FILE))
    if weights is not None:
        model = load_model(weights, manifest.model, manifest.num_classes, input_size(build))
        return torch_logits(model), FLOAT_WEIGHTS
    if program is not None:
        return torch_logits(QuantizedProgram.load(program)), "QDQ program"
    if onnx_file is not None:
        return onnx_logits(onnx_file), "ONNX program"
    raise UserError(f"{build.path} holds neither weights nor a program to compare with; compile the model again")


def qdq_logits(build: BuildFolder) -> Logits | None:
    """The quantized program in PyTorch, or None for a float32 build."""
    program = build.file(PROGRAM_FILE)
    return torch_logits(QuantizedProgram.load(program)) if program is not None else None


def input_size(build: BuildFolder) -> int:
    """Side of the network's input in pixels."""
    shape = build.manifest.input_shape
    if len(shape) != 4 or shape[1] != shape[2]:
        raise UserError(
            f"{build.path}: input shape {json.dumps(list(shape))} is not [1,S,S,3]; compile the model again"
        )
    return shape[1]
