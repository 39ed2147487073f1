"""The command `edgenext-tvm finetune`: settings echoed, a table and the next command, Ctrl-C, mistakes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgenext_tvm import cli

XXS = "edgenext_xx_small"
ROOT = Path(__file__).resolve().parents[2]
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs `edgenext-tvm finetune ARGUMENTS`: (status, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["edgenext-tvm", "finetune", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capfd.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


def test_settings_epochs_result_and_the_next_command(command: Command, squares: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.safetensors"
    status, text, err = command(
        XXS, "--images", squares, "--out", out, "--epochs", 1, "--input-size", 64, "--threads", 1, "--batch-size", 16
    )
    assert status == 0 and out.exists()
    assert "  phases           64x1\n" in err and "  learning-rate    0.002\n" in err
    assert "3 classes, from edgenext_xx_small_cifar10.safetensors with a new classifier; 59 images in batches" in err
    assert "  epoch   1/1  64 px  loss " in err and "top-1 " in err
    assert "3: blue, green, red" in text and "64x64 pixels" in text
    assert text.splitlines()[-1] == f"next: edgenext-tvm compile {XXS} --checkpoint {out} --calibration {squares}"


def test_json_is_one_object(command: Command, squares: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.safetensors"
    status, text, _ = command(
        XXS, "--images", squares, "--out", out, "--phases", "64x1", "--batch-size", 32, "--hold-out", 0, "--threads", 1,
        "--checkpoint", "random", "--json",
    )  # fmt: skip
    result = json.loads(text)
    assert status == 0
    assert (result["checkpoint"], result["classes"], result["top1"]) == (str(out), ["blue", "green", "red"], None)
    assert result["next"].startswith("edgenext-tvm compile")


def test_ctrl_c_saves_and_says_how_to_go_on(squares: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.safetensors"
    arguments = ["--images", squares, "--out", out, "--phases", "64x500", "--threads", "1", "--batch-size", "16"]
    command = [sys.executable, "-m", "edgenext_tvm.cli", "finetune", XXS, *map(str, arguments)]
    state, deadline = out.with_name("x.safetensors.training"), time.monotonic() + 300
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            while not state.exists() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "Traceback" not in err
    assert f"the state is saved in {state}" in err and "go on with the same command and --resume" in err
    assert [file.name for file in tmp_path.iterdir()] == ["x.safetensors.training"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("resnet",), "unknown model 'resnet'"),
        ((XXS, "--phases", "64"), "training phase '64' is not SIDExEPOCHS"),
        ((XXS, "--phases", "64x1", "--epochs", 3), "--phases already says sizes and epochs; leave out --epochs"),
        ((XXS, "--epochs", 0), "epochs is 0; allowed: 1 to 99999 (try 30)"),
        ((XXS, "--input-size", 100), "input size 100 is not possible"),
        ((XXS, "--workers", -1), "workers is -1; allowed: 0 to 1024"),
        ((XXS, "--threads", 0), "threads is 0; allowed: 1 to 1024"),
        ((XXS, "--optimizer", "sgd"), "optimizer 'sgd' is unknown; allowed: muon, adamw"),
        ((XXS, "--qat", 0), "quantization-aware epochs is 0"),
        ((XXS, "--device", "tpu"), "device 'tpu' is unknown; allowed: cpu, cuda"),
        ((XXS, "--checkpoint", "absent.pth"), "checkpoint absent.pth is not there"),
        ((XXS, "--limit", 0), "image limit is 0"),
    ],
)
def test_mistakes(command: Command, squares: Path, tmp_path: Path, arguments: tuple, message: str) -> None:
    status, text, err = command(*arguments, "--images", squares, "--out", tmp_path / "x.safetensors")
    assert (status, text) == (2, "")
    assert "Traceback" not in err
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0]
    assert not list(tmp_path.iterdir())


def test_no_such_images(command: Command, tmp_path: Path) -> None:
    status, _, err = command(XXS, "--images", tmp_path / "nowhere", "--out", tmp_path / "x.safetensors")
    assert status == 2 and "error: no images at" in err
