"""A peer is counted between two marks, in a process whose answers were right, and only once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.peers.arm import count
from benchmarks.peers.arm.command import main
from benchmarks.peers.arm.cores import choose_cores
from benchmarks.peers.arm.sysroot import ensure_userland
from benchmarks.peers.artifacts import convert
from benchmarks.peers.case import prepare_case
from benchmarks.peers.entrants import Entrant, choose_engines
from benchmarks.peers.failures import PeerUnavailable


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "resnet50"], "resnet50"),
        (["--cores", "cortex-m4"], "core 'cortex-m4' is unknown; allowed: cortex-a76, cortex-a72, cortex-a53"),
        (["--engines", "openvino"], "engine 'openvino' is not counted; allowed: edgenext_tvm, onnxruntime, litert"),
        (["--json", "/no/such/folder/out.json"], "its folder does not exist; create it, or name another file"),
    ],
)
def test_a_mistake_is_one_error_and_status_2(arguments: list[str], message: str, capsys) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert "Traceback" not in error


def test_only_what_ran_between_the_last_two_marks_counts(tmp_path: Path) -> None:
    blocks = tmp_path / "blocks"
    # an early mark at start-up, loading, two blocks of inferences (3 * 16 and 10 * 1), and the end
    blocks.write_text("entry 400\n400 5 1\nmark\n400 5 2\n500 7 3\nmark\n500 3 10\n600 a 1\nmark\n700 9 9\n")
    assert count._between_last_marks(blocks, "qemu-aarch64") == 3 * 16 + 10


def test_a_qemu_without_plugins_is_a_reason(tmp_path: Path) -> None:
    with pytest.raises(PeerUnavailable, match="loaded no plugin; it needs plugin support"):
        count._between_last_marks(tmp_path / "none", "qemu-aarch64")


def test_a_run_without_marks_is_a_reason(tmp_path: Path) -> None:
    blocks = tmp_path / "blocks"
    blocks.write_text("entry 400\n400 5 1\nmark\n400 5 2\n")
    with pytest.raises(PeerUnavailable, match="saw 1 of 2 marks"):
        count._between_last_marks(blocks, "qemu-aarch64")


@pytest.mark.slow
@pytest.mark.qemu
def test_a_real_runtime_is_counted_and_a_wrong_one_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Needs the package indexes the first time: it installs the runtime and Debian's AArch64 Python."""
    (engine,), (core,) = choose_engines("litert"), choose_cores("cortex-a76")
    entrant = Entrant(engine, "int8-dynamic", 1)
    case = prepare_case("edgenext_xx_small")
    folder, userland = convert(engine, entrant.precision, case), ensure_userland()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    instructions, cosine = count.count_peer(entrant, folder, case, core, userland)
    assert cosine > 0.99
    # 257 M multiply-adds, at most 16 an instruction
    assert 257e6 / 16 < instructions < 257e6
    monkeypatch.setattr(count, "_run", lambda *_: pytest.fail("a second time must not run anything"))
    assert count.count_peer(entrant, folder, case, core, userland) == (instructions, cosine)

    monkeypatch.undo()
    wrong = tmp_path / case.name
    wrong.mkdir()
    for file in case.iterdir():
        (wrong / file.name).symlink_to(file)
    (wrong / "logits.npy").unlink()
    np.save(wrong / "logits.npy", -np.load(case / "logits.npy"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    with pytest.raises(PeerUnavailable, match="wrong answer: cosine -"):
        count.count_peer(entrant, folder, wrong, core, userland)
