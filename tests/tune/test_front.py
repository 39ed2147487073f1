"""The command `tune`: mistakes are told before the model is read, and the budget of a resumed session is the rest."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from edgenext_tvm import cli
from edgenext_tvm.board import load_board
from edgenext_tvm.tune.manifest import Progress, new_manifest
from edgenext_tvm.tune.measurers import runner_for

Command = Callable[..., tuple[int, str, str]]
XXS = "edgenext_xx_small"


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["edgenext-tvm", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capfd.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--runner", "usb"), r"unknown runner 'usb'; allowed: local, emulator, rpc, ssh://user@host\[:port\]"),
        (("--runner", "ssh"), r"--runner ssh needs the board's address: --runner ssh://user@host\[:port\]"),
        (("--runner", "rpc"), "--runner rpc needs --tracker HOST:PORT; start one with"),
        (("--tracker", "127.0.0.1:1"), "--tracker and --key belong to --runner rpc, not to local; remove them"),
        (("--trials", "0"), "--trials is 0; allowed: 1 to 1000000"),
        (("--time-budget", "0"), "--time-budget is 0; allowed: more than 0 to 100000 minutes"),
        (("--board", "rpi4", "--runner", "local"), "board 'rpi4' is not this machine"),
        (("--runner", "emulator"), "--runner emulator counts for another board, .*: use --runner local"),
        (("--time-budget", "-1"), "--time-budget is -1; allowed: more than 0 to 100000 minutes"),
        (("--runner", "rpc", "--tracker", "pi"), "tracker 'pi' is not HOST:PORT; for example 192.168.1.10:9190"),
        (("--runner", "rpc", "--tracker", "127.0.0.1:1"), "no RPC tracker answers on 127.0.0.1:1 .*start one there: "),
        (("--key", "pi"), "--tracker and --key belong to --runner rpc, not to local; remove them"),
        (("--runner", "ssh://127.0.0.1:99999"), "port 99999 does not exist; allowed: 1 to 65535"),
        (("--runner", "ssh://127.0.0.1:1"), "lost ssh://127.0.0.1:1: .*Connection refused; check that `ssh .*` works"),
        (("--resume",), "--resume: there is no unfinished session in .*has none"),
    ],
    ids=lambda value: "" if isinstance(value, str) else " ".join(value),
)
def test_mistakes(command: Command, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    status, out, err = command("tune", XXS, "--log-dir", tmp_path / "log", *arguments)
    assert (status, out) == (2, "") and "Traceback" not in err
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert re.search(message, line)
    assert not (tmp_path / "log").exists()


def test_another_model_cannot_resume(command: Command, tmp_path: Path) -> None:
    manifest = new_manifest(load_board("host"), "local", "s", "2026-01-01T00:00:00Z")
    options = {"checkpoint": None, "num_classes": None, "input_size": 128}
    manifest.session = Progress(model=XXS, options=options, trials=8, time_budget_s=None)
    manifest.save(tmp_path)
    status, _, err = command("tune", XXS, "--input-size", 64, "--resume", "--log-dir", tmp_path)
    assert status == 2
    assert f"tunes {XXS} --input-size 128; give the same model, or run without --resume" in err


def test_boards_have_a_runner_by_default() -> None:
    assert runner_for(load_board("host"), None) == "local"
    assert runner_for(load_board("rpi4"), None) == "emulator"
    assert runner_for(load_board("rpi4"), "ssh://pi@board:2222") == "ssh://pi@board:2222"


@pytest.mark.slow
def test_tune_then_compile(command: Command, tmp_path: Path) -> None:
    logs = tmp_path / "log"
    status, out, _ = command(
        "tune", XXS, "--input-size", 64, "--trials", 2, "--log-dir", logs, "--json", "--no-check-float32"
    )
    result = json.loads(out)
    assert status == 0 and result["trials"] > 10 and result["noise"] >= 0
    assert all(task["winner"] for task in result["tasks"])
    options = ("--input-size", 64, "--calibration", "synthetic:2", "--tuning-logs", logs, "--compare-float32")
    status, out, _ = command("compile", XXS, *options, "--out", tmp_path / "build", "--json")
    built = json.loads(out)
    assert status == 0 and built["selftest"]
    assert not built["tuning"]["fell_back"]
    assert built["float_check"]["origin"] == "measured now" and built["float_check"]["speedup"] > 0
