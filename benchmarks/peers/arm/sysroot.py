"""An AArch64 userland in a folder: Debian's Python and the runtimes' wheels, for qemu's -L. Needs no root.

Debian's packages come through apt with a state of its own, so the system's package lists are neither read nor changed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.arm.cores import ArmCore
from benchmarks.peers.environments import peers_cache
from benchmarks.peers.failures import PeerUnavailable, last_words

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
PACKAGES = ("python3", "libstdc++6", "libgomp1")
# newest first: the wheels' names say which C library they need, and Debian's has all of these
PLATFORMS = tuple(f"manylinux_2_{minor}_aarch64" for minor in (28, 27, 26, 24, 17)) + ("manylinux2014_aarch64",)
SITE = "site"
INSTALL_TIMEOUT_S = 1800


def ensure_userland() -> Path:
    """The folder with Debian's arm64 Python and, in site/, the wheels; made on first use and when a pin changes.

    PeerUnavailable with the installer's last words where it cannot be made; the log stays beside it.
    """
    digest = hashlib.sha256(REQUIREMENTS.read_bytes() + Path(__file__).read_bytes()).hexdigest()[:12]
    folder = peers_cache() / "arm" / f"userland-{digest}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = folder.with_suffix(".log")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="partial-") as partial:
        root = Path(partial) / "root"
        root.mkdir()
        for package in _download_packages(Path(partial), log):
            _call(["dpkg-deb", "-x", str(package), str(root)], log, {})
        _install_wheels(root, log)
        for older in folder.parent.glob("userland-????????????"):
            shutil.rmtree(older, ignore_errors=True)
        root.rename(folder)
    return folder


def python_of_userland(userland: Path) -> Path:
    """Its one Python 3, not a link to it."""
    (python,) = (path for path in (userland / "usr" / "bin").iterdir() if re.fullmatch(r"python3\.\d+", path.name))
    return python


def root_of(core: ArmCore, userland: Path) -> Path:
    """A view of the userland whose /proc/cpuinfo describes `core`."""
    root = userland.parent / f"{userland.name}-{core.name}"
    (root / "proc").mkdir(parents=True, exist_ok=True)
    (root / "proc" / "cpuinfo").write_text(core.cpuinfo())
    for entry in userland.iterdir():
        link = root / entry.name
        if not link.exists():
            link.unlink(missing_ok=True)
            link.symlink_to(entry)
    return root


def _download_packages(work: Path, log: Path) -> list[Path]:
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise PeerUnavailable("the AArch64 userland is made of Debian's packages: apt-get and dpkg-deb are needed")
    state = work / "apt"
    for folder in ("lists/partial", "archives/partial"):
        (state / folder).mkdir(parents=True)
    (state / "status").touch()
    config = state / "apt.conf"
    # an empty status file: nothing counts as installed, so every dependency is downloaded
    config.write_text(
        'APT::Architecture "arm64";\nAPT::Architectures { "arm64"; };\nAPT::Install-Recommends "false";\n'
        f'Dir::State "{state}";\nDir::State::lists "{state}/lists";\nDir::State::status "{state}/status";\n'
        f'Dir::Cache "{state}";\nDir::Cache::archives "{state}/archives";\n'
        # as root apt would download as a user that may not enter this folder
        + ('APT::Sandbox::User "root";\n' if os.geteuid() == 0 else "")
    )
    variables = {"APT_CONFIG": str(config), "DEBIAN_FRONTEND": "noninteractive"}
    log.write_text("")
    _call(["apt-get", "update"], log, variables)
    _call(["apt-get", "install", "--download-only", "--yes", *PACKAGES], log, variables)
    return sorted((state / "archives").glob("*.deb"))


def _install_wheels(root: Path, log: Path) -> None:
    version = python_of_userland(root).name.removeprefix("python")
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-deps", "--no-compile"]
    command += ["--only-binary=:all:", "--implementation", "cp", "--python-version", version]
    command += [word for platform in PLATFORMS for word in ("--platform", platform)]
    _call([*command, "--target", str(root / SITE), "-r", str(REQUIREMENTS)], log, {})


def _call(command: Sequence[str], log: Path, variables: dict[str, str]) -> None:
    with log.open("a+") as output:
        start = output.tell()
        try:
            status = subprocess.run(
                list(command),
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **variables},
                timeout=INSTALL_TIMEOUT_S,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            raise PeerUnavailable(f"{command[0]} took over {INSTALL_TIMEOUT_S} s (log: {log})") from None
        if status != 0:
            output.seek(start)
            raise PeerUnavailable(f"the AArch64 userland: {last_words(output.read())} (log: {log})")
