"""What a figure is worth nothing without: the machine, its core, its load and everybody's versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.peers.entrants import Engine
from benchmarks.peers.environments import CHECKOUT, python_of
from benchmarks.peers.failures import PeerUnavailable

CPUINFO = Path("/proc/cpuinfo")
# what int8 and bfloat16 kernels choose by
TELLING_FEATURES = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm", "bf16")
VERSIONS = "import importlib.metadata as m, json, sys; print('\\n'.join(m.version(n) for n in sys.argv[1:]))"


def describe_machine() -> dict[str, Any]:
    """Name, CPU, core (LLVM's name of it), features that matter, and the number of CPUs that may be used."""
    from tvm.target.codegen import llvm_get_system_cpu

    fields = dict(_cpu_fields())
    flags = fields.get("flags", fields.get("Features", "")).split()
    return {
        "name": platform.node(),
        "cpu": fields.get("model name", platform.processor() or platform.machine()),
        "core": str(llvm_get_system_cpu()),
        "features": [name for name in TELLING_FEATURES if name in flags],
        "cpus": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
    }


def _cpu_fields() -> list[tuple[str, str]]:
    if not CPUINFO.is_file():
        return []
    first = CPUINFO.read_text().split("\n\n", 1)[0].splitlines()
    return [(key.strip(), value.strip()) for key, _, value in (line.partition(":") for line in first)]


def load_average() -> float:
    """Processes that ran or waited, over the last minute."""
    return round(os.getloadavg()[0], 2)


def versions(engine: Engine) -> dict[str, str]:
    """Versions of the engine's packages; of this project with its commit."""
    try:
        python = python_of(engine)
    except PeerUnavailable:
        return {}
    finished = subprocess.run([str(python), "-c", VERSIONS, *engine.packages], capture_output=True, text=True)
    return dict(zip(engine.packages, finished.stdout.split(), strict=False)) if finished.returncode == 0 else {}


def our_version() -> str:
    """Version and commit of this project, "+changes" where the checkout differs from it."""
    commit = _git("rev-parse", "--short", "HEAD") or "unknown commit"
    changes = "+changes" if _git("status", "--porcelain", "--", "edgenext_tvm", "runtime_c", "targets") else ""
    try:
        version = importlib.metadata.version("edgenext-tvm")
    except importlib.metadata.PackageNotFoundError:
        version = "checkout"
    return f"{version} ({commit}{changes})"


def _git(*arguments: str) -> str:
    finished = subprocess.run(["git", *arguments], cwd=CHECKOUT, capture_output=True, text=True)
    return finished.stdout.strip() if finished.returncode == 0 else ""
