"""Counts the instructions of one inference of a peer under the emulator, in a process whose answers were checked."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.peers.arm.cores import ArmCore
from benchmarks.peers.arm.sysroot import SITE, python_of_userland, root_of
from benchmarks.peers.arm.worker import MARK
from benchmarks.peers.entrants import Entrant
from benchmarks.peers.environments import CHECKOUT, FOLDER, peers_cache
from benchmarks.peers.failures import PeerUnavailable, last_words
from benchmarks.peers.guard import check_logits
from edgenext_tvm.board import load_board
from edgenext_tvm.tune.emulator.count import plugin_path
from edgenext_tvm.tune.emulator.elf_functions import read_functions
from edgenext_tvm.verify.runner import QemuRunner

EMULATION_TIMEOUT_S = 3600
LOADER = Path("lib", "ld-linux-aarch64.so.1")
# a runtime's inferences differ by a few in a hundred (where its buffers lie, when Python collects): count several
COUNTED_INFERENCES = 3


def count_peer(entrant: Entrant, folder: Path, case: Path, core: ArmCore, userland: Path) -> tuple[int, float]:
    """(instructions of one inference, least cosine of its logits). PeerUnavailable if it fails or is wrong.

    The mean of several inferences with everything warm. It is kept until anything changes that decides it.
    """
    runner = QemuRunner.for_board(load_board(core.board))
    kept = peers_cache() / "arm" / "counts" / f"{_key(runner, folder, case, core, userland)}.json"
    if not kept.is_file():
        instructions, cosine = _count(runner, entrant, folder, case, core, userland)
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps({"instructions": instructions, "cosine": cosine}))
        partial.rename(kept)
    found = json.loads(kept.read_text())
    return found["instructions"], found["cosine"]


def _key(runner: QemuRunner, folder: Path, case: Path, core: ArmCore, userland: Path) -> str:
    digest = hashlib.sha256()
    # the folders' names hold hashes of what they were made from
    for text in (folder.name, case.name, userland.name, core.cpuinfo(), runner.name, emulator_version(runner)):
        digest.update(text.encode() + b"\0")
    for file in (Path(__file__), FOLDER / "arm" / "worker.py", FOLDER / "workers" / "protocol.py"):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def emulator_version(runner: QemuRunner) -> str:
    """What the emulator says of itself, for example "qemu-aarch64 version 7.2.22 (Debian 1:7.2+dfsg-7)"."""
    done = subprocess.run([runner.qemu, "--version"], capture_output=True, text=True, check=False)
    return done.stdout.splitlines()[0] if done.stdout else runner.qemu


def _count(
    runner: QemuRunner, entrant: Entrant, folder: Path, case: Path, core: ArmCore, userland: Path
) -> tuple[int, float]:
    root = root_of(core, userland)
    python = root / python_of_userland(userland).relative_to(userland)
    variables = {
        **os.environ,
        "PYTHONPATH": f"{root / SITE}:{CHECKOUT}",
        # the same run every time, as far as Python is concerned
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }
    mark = _distance_of_mark(userland / LOADER)
    with tempfile.TemporaryDirectory(prefix="edgenext-tvm-arm-") as work:
        logits, blocks = Path(work) / "logits.npy", Path(work) / "blocks"
        plugin = f"{plugin_path()},out={blocks},mark={mark}"
        command = [runner.qemu, "-L", str(root), "-cpu", runner.cpu, "-plugin", plugin, str(python)]
        command += ["-m", "benchmarks.peers.arm.worker", entrant.engine.worker, str(folder), entrant.precision]
        command += [str(case), str(logits), str(COUNTED_INFERENCES)]
        _run(command, variables)
        instructions = _between_last_marks(blocks, runner.qemu)
        answers = np.load(logits, allow_pickle=False)
    cosine = check_logits(answers, np.load(case / "logits.npy"), entrant.least_cosine)
    return round(instructions / COUNTED_INFERENCES), cosine


def _distance_of_mark(loader: Path) -> int:
    functions = read_functions(loader)
    return functions.starts[functions.names.index(MARK)] - functions.entry


def _run(command: list[str], variables: dict[str, str]) -> None:
    try:
        done = subprocess.run(
            command,
            env=variables,
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=EMULATION_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise PeerUnavailable(f"ran longer than {EMULATION_TIMEOUT_S} s under {command[0]}") from None
    if done.returncode != 0:
        raise PeerUnavailable(f"status {done.returncode} under {command[0]}: {last_words(done.stderr)}")


def _between_last_marks(blocks: Path, qemu: str) -> int:
    """The plugin's file: ADDRESS INSTRUCTIONS EXECUTIONS per block, hexadecimal; of those before a mark, since the one
    before it.
    """
    if not blocks.is_file():
        raise PeerUnavailable(f"{qemu} loaded no plugin; it needs plugin support, as in Debian's qemu-user")
    lines = blocks.read_text().splitlines()
    marks = [index for index, line in enumerate(lines) if line == "mark"]
    if len(marks) < 2:
        raise PeerUnavailable(f"{qemu} saw {len(marks)} of 2 marks; nothing can be counted between them")
    rows = (line.split() for line in lines[marks[-2] + 1 : marks[-1]])
    return sum(int(row[1], 16) * int(row[2], 16) for row in rows)
