"""Folders that ship beside the code: a checkout's own, or a wheel's copies under _data."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def _shipped(folder: str) -> Path:
    checkout = PACKAGE.parent / folder
    if (PACKAGE.parent / "pyproject.toml").is_file() and checkout.is_dir():
        return checkout
    return PACKAGE / "_data" / folder


RUNTIME_C = _shipped("runtime_c")
TARGETS = _shipped("targets")
TUNING_LOGS = _shipped("tuning_logs")
EXAMPLES = _shipped("examples")


def cache_dir() -> Path:
    """The user's cache folder of this project: $XDG_CACHE_HOME/edgenext_tvm, else ~/.cache/edgenext_tvm."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "edgenext_tvm"


def user_data_dir() -> Path:
    """The user's data folder of this project: $XDG_DATA_HOME/edgenext_tvm, else ~/.local/share/edgenext_tvm."""
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "edgenext_tvm"
