"""Uses a build's program: classifies images, tests itself, measures; through whichever runner reaches the board."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgenext_tvm.errors import UserError
from edgenext_tvm.verify.build_folder import BuildFolder
from edgenext_tvm.verify.runner import Runner

LOGITS_FILE = "logits.npy"


@dataclass(frozen=True)
class Timing:
    """Of single inferences, in ms; preprocessing is not part of them."""

    median_ms: float
    min_ms: float
    threads: int
    repeat: int


def run_logits(build: BuildFolder, runner: Runner, images: Sequence[np.ndarray], threads: int = 1) -> np.ndarray:
    """float32 [B, num_classes] of B inputs: RGB images uint8 [H,W,3] of any size, or network inputs [1,S,S,3]."""
    with tempfile.TemporaryDirectory(prefix="edgenext-tvm-") as folder:
        inputs = _write_batches(Path(folder), images)
        dump = Path(folder) / LOGITS_FILE
        arguments = ["--threads", str(threads), "--dump", LOGITS_FILE, *(path.name for path in inputs)]
        runner.run(build.program, arguments, inputs, [dump])
        logits = np.load(dump, allow_pickle=False)
    expected = (len(images), build.manifest.num_classes)
    if logits.shape != expected or logits.dtype != np.float32:
        raise UserError(
            f"{build.program.name} on {runner.name} wrote {logits.dtype} {list(logits.shape)}; expected float32 "
            f"{list(expected)}; compile the model again"
        )
    return logits


def _write_batches(folder: Path, images: Sequence[np.ndarray]) -> list[Path]:
    """One .npy per run of equal shapes, in order: uint8 [B,H,W,3], or [B,S,S,3] of the input's dtype."""
    paths: list[Path] = []
    start = 0
    for end in range(1, len(images) + 1):
        if end < len(images) and (images[end].shape, images[end].dtype) == (images[start].shape, images[start].dtype):
            continue
        batch = images[start:end]
        path = folder / f"images{len(paths):05d}.npy"
        np.save(path, np.concatenate(batch) if batch[0].ndim == 4 else np.stack(batch))
        paths.append(path)
        start = end
    return paths


def selftest(build: BuildFolder, runner: Runner, threads: int = 1) -> bool:
    """True when every golden vector holds on the device."""
    return runner.run(build.program, ["--selftest", "--threads", str(threads)]).status == 0


def benchmark(build: BuildFolder, runner: Runner, threads: int, repeat: int) -> Timing:
    """Times `repeat` inferences of a made-up input with `threads` threads."""
    arguments = ["--benchmark", "--json", "--threads", str(threads), "--repeat", str(repeat)]
    measured = _json(runner.run(build.program, arguments).stdout, build, runner)["benchmark"]
    return Timing(measured["median_us"] / 1000, measured["min_us"] / 1000, threads, measured["runs"])


def profile(build: BuildFolder, runner: Runner, threads: int, repeat: int) -> dict[str, Any]:
    """Time of each step and layer, as the program's --profile --json gives it."""
    arguments = ["--profile", "--json", "--threads", str(threads), "--repeat", str(repeat)]
    return _json(runner.run(build.program, arguments).stdout, build, runner)["profile"]


def classify(
    build: BuildFolder, runner: Runner, images: Sequence[np.ndarray], top: int, threads: int
) -> list[list[dict]]:
    """Per image its `top` best classes: {"class", "name" if known, "logit", "probability"}, best first."""
    with tempfile.TemporaryDirectory(prefix="edgenext-tvm-") as folder:
        inputs = _write_batches(Path(folder), images)
        arguments = ["--json", "--top", str(top), "--threads", str(threads), *(path.name for path in inputs)]
        answer = _json(runner.run(build.program, arguments, inputs).stdout, build, runner)
    return [image["top"] for image in answer["images"]]


def _json(text: str, build: BuildFolder, runner: Runner) -> dict[str, Any]:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UserError(f"{build.program.name} on {runner.name} did not print JSON ({error}); compile again") from None
