"""Skips tests marked `qemu` with one clear reason where qemu-user is absent."""

from __future__ import annotations

import shutil

import pytest

QEMU = ("qemu-aarch64", "qemu-arm")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    absent = [program for program in QEMU if shutil.which(program) is None]
    if not absent:
        return
    skip = pytest.mark.skip(reason=f"{' and '.join(absent)} not found: install qemu-user")
    for item in items:
        if "qemu" in item.keywords:
            item.add_marker(skip)
