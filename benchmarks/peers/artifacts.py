"""Each engine's network in its own format, converted once and kept until anything that decides it changes."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from benchmarks.peers.entrants import OURS, Engine
from benchmarks.peers.environments import (
    CHECKOUT,
    FOLDER,
    REQUIREMENTS,
    peers_cache,
    python_of,
    worker_variables,
)
from benchmarks.peers.failures import PeerUnavailable, last_words

CONVERT_TIMEOUT_S = 3600
SHARED_SOURCES = ("workers/network.py", "workers/protocol.py")
# what decides a build of this project
OUR_SOURCES = ("edgenext_tvm", "runtime_c", "targets", "tuning_logs")


def worker_command(engine: Engine) -> list[str]:
    """How the engine's worker is started, in its environment."""
    return [str(python_of(engine)), "-W", "ignore", "-m", f"benchmarks.peers.workers.{engine.worker}"]


def convert(engine: Engine, precision: str, case: Path) -> Path:
    """The folder with the case's network for the engine. PeerUnavailable with the converter's last words."""
    key = sources_key(engine)
    folder = peers_cache() / "artifacts" / case.name / f"{engine.name}-{precision}-{key}"
    if folder.is_dir():
        return folder
    command = worker_command(engine)
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = folder.with_suffix(".log")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="partial-") as partial:
        out = Path(partial) / "out"
        out.mkdir()
        with log.open("w") as output:
            try:
                status = subprocess.run(
                    [*command, "convert", str(case), str(out), precision],
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=worker_variables(1),
                    timeout=CONVERT_TIMEOUT_S,
                ).returncode
            except subprocess.TimeoutExpired:
                raise PeerUnavailable(f"converting took over {CONVERT_TIMEOUT_S} s (log: {log})") from None
        if status != 0:
            raise PeerUnavailable(f"cannot be converted: {last_words(log.read_text())} (log: {log})")
        for older in folder.parent.glob(f"{engine.name}-{precision}-????????????"):
            shutil.rmtree(older, ignore_errors=True)
        out.rename(folder)
    return folder


def sources_key(engine: Engine) -> str:
    """Changes whenever a file changes that decides what the engine is given."""
    return _digest(_sources(engine))


def _sources(engine: Engine) -> Iterable[Path]:
    yield FOLDER / "workers" / f"{engine.worker}.py"
    if engine.name == OURS:
        for name in OUR_SOURCES:
            for path in sorted((CHECKOUT / name).rglob("*")):
                if path.is_file() and "__pycache__" not in path.parts:
                    yield path
        return
    yield from (FOLDER / name for name in SHARED_SOURCES)
    if engine.requirements:
        yield REQUIREMENTS / engine.requirements


def _digest(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(str(file.relative_to(CHECKOUT)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:12]
