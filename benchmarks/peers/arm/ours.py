"""This project's build for a core's board: compiled from the case's weights, checked, counted."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from benchmarks.peers.arm.cores import ArmCore
from benchmarks.peers.artifacts import sources_key
from benchmarks.peers.case import CALIBRATION, CHECKPOINT, INPUT_SIZE
from benchmarks.peers.entrants import Entrant
from benchmarks.peers.environments import peers_cache
from benchmarks.peers.failures import PeerUnavailable
from benchmarks.peers.guard import check_logits
from edgenext_tvm.api import compile_model
from edgenext_tvm.errors import UserError
from edgenext_tvm.tune.emulator import count_inference
from edgenext_tvm.verify.build_folder import open_build
from edgenext_tvm.verify.device import run_logits
from edgenext_tvm.verify.runner import QemuRunner


def build_for(entrant: Entrant, model: str, case: Path, core: ArmCore) -> Path:
    """The int8 build for the core's board, kept until a source file of this project changes."""
    pattern = f"{entrant.engine.name}-int8-{core.board}"
    folder = peers_cache() / "artifacts" / case.name / f"{pattern}-{sources_key(entrant.engine)}"
    if folder.is_dir():
        return folder
    for older in folder.parent.glob(f"{pattern}-????????????"):
        shutil.rmtree(older, ignore_errors=True)
    try:
        compile_model(
            model, core.board, checkpoint=CHECKPOINT, calibration=CALIBRATION, input_size=INPUT_SIZE, out=folder
        )
    except UserError as error:
        raise PeerUnavailable(str(error)) from None
    return folder


def count_ours(entrant: Entrant, folder: Path, case: Path) -> tuple[int, float]:
    """(instructions of one inference, least cosine of its logits). PeerUnavailable if it fails or is wrong."""
    try:
        build = open_build(folder)
        runner = QemuRunner.for_board(build.board)
        logits = run_logits(build, runner, list(np.load(case / "probe_images.npy")))
        cosine = check_logits(logits, np.load(case / "logits.npy"), entrant.least_cosine)
        return count_inference(folder).total, cosine
    except UserError as error:
        raise PeerUnavailable(str(error)) from None
