"""`tune` as a user runs it, while boards vanish: it ends well or says what to do, and loses nothing either way."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgenext_tvm.paths import PACKAGE
from edgenext_tvm.tune.database import RECORDS
from edgenext_tvm.tune.manifest import load_tuning_manifest

CHECKOUT = str(PACKAGE.parent)
if CHECKOUT not in sys.path:
    sys.path.insert(0, CHECKOUT)
from benchmarks.rpc_farm import Farm  # noqa: E402

_SPEC = importlib.util.spec_from_file_location("test_ssh_server", Path(__file__).parent / "test_ssh.py")
test_ssh = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(test_ssh)

pytestmark = pytest.mark.slow
MODEL = ("edgenext_xx_small", "--checkpoint", "random", "--input-size", "64")


def tune(
    folder: Path,
    *arguments: str,
    at: str = "",
    then: Callable[[subprocess.Popen[str]], object] | None = None,
    **env: str,
) -> tuple[int, str]:
    """Status and output of `tune`; `then` is called once, when a line with `at` appears."""
    command = [sys.executable, "-m", "edgenext_tvm.cli", "tune", *MODEL, "--log-dir", str(folder), *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **env}
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if then is not None and at in line:
            then(process)
            then = None
    assert then is None, "".join(lines)
    return process.wait(), "".join(lines)


def records(folder: Path) -> list[str]:
    return (folder / RECORDS).read_text().splitlines()


def assert_unfinished_with_points(folder: Path, output: str) -> list[str]:
    """The records; the error names their number and --resume, and the manifest has the session."""
    assert "Traceback" not in output
    kept = records(folder)
    assert kept and f"the {len(kept)} points on disk are safe: go on with --resume" in output
    session = load_tuning_manifest(folder).session
    assert session is not None and not session.finished
    return kept


def test_a_killed_rpc_server_costs_nothing_and_the_summary_names_it(tmp_path: Path) -> None:
    with Farm() as farm:
        first, *_ = farm.start(3)
        status, output = tune(
            tmp_path / "log", "--runner", "rpc", "--tracker", farm.tracker.address, "--key", farm.key, "--trials", "2",
            "--no-check-float32", "--json", at=" trials, best ", then=lambda _: farm.kill(first),
        )  # fmt: skip
    assert status == 0, output
    result = json.loads(output.splitlines()[-1])
    assert f"lost {first}: no longer registered with {farm.tracker.address}" in result["notes"]
    assert all(task["winner"] for task in result["tasks"])


def test_without_any_rpc_server_left_nothing_is_lost_and_resume_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with Farm() as farm:
        servers = farm.start(2)
        remote = ("--runner", "rpc", "--tracker", farm.tracker.address, "--key", farm.key, "--no-check-float32")
        status, output = tune(log, *remote, "--trials", "2", at=" trials, best ", then=lambda _: farm.kill(*servers))
        assert status == 2 and f"no server of key '{farm.key}' is registered" in output
        kept = assert_unfinished_with_points(log, output)
        status, output = tune(log, *remote, "--resume")
        assert status == 2 and f"has no server of key '{farm.key}'" in output and records(log) == kept
        farm.start(2)
        status, output = tune(log, *remote, "--resume", "--json")
    result = json.loads(output.splitlines()[-1])
    assert status == 0 and all(task["measured"] >= 2 for task in result["tasks"])
    assert sum(task["measured"] for task in result["tasks"]) == len(kept) + result["trials"]


@pytest.mark.skipif(
    test_ssh.SERVER is None or shutil.which("ssh") is None, reason="install openssh-server and openssh-client"
)
def test_a_board_that_loses_its_power_over_ssh_loses_nothing_and_resume_goes_on(tmp_path: Path) -> None:
    log, tools = tmp_path / "log", tmp_path / "tools"
    (tmp_path / "keys").mkdir()
    tools.mkdir()
    server = test_ssh.Server(tmp_path / "keys")
    for tool in ("ssh", "scp"):
        # stands for the user's ~/.ssh/config
        (tools / tool).write_text(f'#!/bin/sh\nexec {shutil.which(tool)} {" ".join(server.client())} "$@"\n')
        (tools / tool).chmod(0o755)
    path = f"{tools}:{os.environ['PATH']}"
    remote = ("--runner", f"ssh://{server.target}", "--no-check-float32")
    server.start()
    try:
        status, output = tune(
            log, *remote, "--trials", "2", at=" trials, best ", then=lambda _: server.stop(), PATH=path
        )
        assert status == 2 and f"lost ssh://{server.target}: " in output
        kept = assert_unfinished_with_points(log, output)
        server.start()
        status, output = tune(log, *remote, "--resume", "--json", PATH=path)
        result = json.loads(output.splitlines()[-1])
        assert status == 0 and all(task["winner"] for task in result["tasks"])
        assert sum(task["measured"] for task in result["tasks"]) == len(kept) + result["trials"]
        server.stop()
        new = tmp_path / "new"
        status, output = tune(new, *remote, PATH=path)
        assert status == 2 and "Connection refused; check that" in output and not new.exists()
    finally:
        server.stop()


def test_ctrl_c_in_the_comparison_with_float32_still_shows_the_results(tmp_path: Path) -> None:
    status, output = tune(
        tmp_path / "log", "--trials", "1", at="comparing with float32", then=lambda p: p.send_signal(signal.SIGINT)
    )
    assert status == 130 and "Traceback" not in output
    assert re.search(r"int8 was not compared with float32:\s+interrupted", output)
    assert "speed-up per kernel" in output
