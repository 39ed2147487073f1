"""One virtual environment per engine, made on first use from its pinned requirements and kept in the cache."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.peers.entrants import Engine
from benchmarks.peers.failures import PeerUnavailable, last_words
from edgenext_tvm.paths import cache_dir

FOLDER = Path(__file__).resolve().parent
REQUIREMENTS = FOLDER / "requirements"
CHECKOUT = FOLDER.parents[1]
STAMP = "requirements.sha256"
INSTALL_TIMEOUT_S = 3600


def peers_cache() -> Path:
    """Where environments, converted models and builds are kept: CACHE/edgenext_tvm/peers."""
    return cache_dir() / "peers"


def ensure_environment(name: str, requirements: str) -> Path:
    """The Python of environment `name`, installed when its requirements or the Python version changed.

    PeerUnavailable with the installer's last words when it cannot be installed; the log stays in the cache.
    """
    file = REQUIREMENTS / requirements
    folder = peers_cache() / "environments" / name
    python = folder / "bin" / "python"
    digest = hashlib.sha256(file.read_bytes() + platform.python_version().encode()).hexdigest()
    stamp = folder / STAMP
    if python.exists() and stamp.is_file() and stamp.read_text() == digest:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = folder.parent / f"{name}.log"
    with log.open("w") as output:
        for command in (
            [sys.executable, "-m", "venv", str(folder)],
            [str(python), "-m", "pip", "install", "--disable-pip-version-check", "-r", str(file)],
        ):
            try:
                status = subprocess.run(
                    command, stdout=output, stderr=subprocess.STDOUT, timeout=INSTALL_TIMEOUT_S
                ).returncode
            except subprocess.TimeoutExpired:
                raise PeerUnavailable(f"installing took over {INSTALL_TIMEOUT_S} s (log: {log})") from None
            if status != 0:
                errors = [line for line in log.read_text().splitlines() if line.startswith("ERROR")]
                reason = errors[0] if errors else last_words(log.read_text())
                raise PeerUnavailable(f"cannot be installed: {reason} (log: {log})")
    stamp.write_text(digest)
    return python


def python_of(engine: Engine) -> Path:
    """The Python that runs the engine's worker."""
    if engine.requirements is None:
        return Path(sys.executable)
    return ensure_environment(engine.name, engine.requirements)


def worker_variables(threads: int) -> dict[str, str]:
    """Environment variables of a worker: the checkout to import from, and the number of threads for every library."""
    return {
        **os.environ,
        "PYTHONPATH": str(CHECKOUT),
        "OMP_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "CUDA_VISIBLE_DEVICES": "",
    }
