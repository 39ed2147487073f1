"""Skips `qemu` tests with one clear reason where qemu-user is absent; shares two builds and the CIFAR-10 folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

QEMU = ("qemu-aarch64", "qemu-arm")
SMALLEST_INPUT = 64
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    absent = [program for program in QEMU if shutil.which(program) is None]
    if not absent:
        return
    skip = pytest.mark.skip(reason=f"{' and '.join(absent)} not found: install qemu-user")
    for item in items:
        if "qemu" in item.keywords:
            item.add_marker(skip)


def _compile(folder: Path, board: str) -> Path:
    from edgenext_tvm.api import compile_model

    result = compile_model("edgenext_xx_small", board, input_size=SMALLEST_INPUT, calibration="synthetic:2", out=folder)
    return result.build_dir


@pytest.fixture(scope="session")
def host_build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """EdgeNeXt-XXS with the bundled weights at 64x64 pixels, int8, for this machine. Read only."""
    return _compile(tmp_path_factory.mktemp("host") / "build", "host")


@pytest.fixture(scope="session")
def rpi4_build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model for the Raspberry Pi 4. Read only."""
    return _compile(tmp_path_factory.mktemp("rpi4") / "build", "rpi4")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with cifar10_train.npz and cifar10_test.npz."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no CIFAR-10 images at {SHARED_DATA}")
    return SHARED_DATA
