"""The shell script that reads a machine's state runs on any POSIX shell and says only what it could read."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from edgenext_tvm.tune.machine_state import SCRIPT, parse_state


def test_it_reads_this_machine() -> None:
    done = subprocess.run(["sh", "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    state = parse_state(done.stdout)
    assert state["kernel"].split()[0] == "Linux"
    assert int(state["cores"]) == Path("/proc/cpuinfo").read_text().count("processor\t:")
    assert float(state["load_average"]) >= 0


def test_throttling_flags_of_a_raspberry_pi_are_read(tmp_path: Path) -> None:
    tool = tmp_path / "vcgencmd"
    tool.write_text('#!/bin/sh\n[ "$1" = get_throttled ] && echo throttled=0x50005\n')
    tool.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", "-c", SCRIPT], capture_output=True, text=True, check=True, env=environment)
    assert parse_state(done.stdout)["throttled"] == "0x50005"


def test_what_a_machine_does_not_have_is_absent() -> None:
    assert parse_state("governor=performance\n\nnot a pair\ncpu=a=b\n") == {"governor": "performance", "cpu": "a=b"}
