"""The picture of `accuracy`: drawn whole or not at all; mistakes are told before measuring."""

from __future__ import annotations

import builtins
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgenext_tvm.accuracy.ledger import HOST, NATIVE, fill_ledger
from edgenext_tvm.accuracy.measure_layers import LOGITS, LayerNoise, TensorNoise
from edgenext_tvm.accuracy.measure_ledger import Ledger
from edgenext_tvm.errors import UserError
from edgenext_tvm.report.accuracy_picture import check_picture, draw_accuracy

A = np.array([[3.0, 1.0], [0.0, 2.0]], np.float32)
LEDGER = Ledger(fill_ledger({NATIVE: A, HOST: A + [[0.1, 0.0]]}, None), "few.npz", "host", None)
NOISE = LayerNoise(
    tuple(TensorNoise(f"l{i}:add", f"l{i}", "add", "int8", 0.5, 0, 30.0 - i, 40.0, 0.0) for i in range(40))
    + (TensorNoise(LOGITS, "fc", "dense", "float32", 1.0, 0, math.inf, math.inf, 0.0),),
    (),
    4,
    "host",
)


def test_the_noise_is_drawn_below_the_ledger(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    paths = [draw_accuracy(tmp_path / "both.png", LEDGER, NOISE), draw_accuracy(tmp_path / "ledger.png", LEDGER, None)]
    with Image.open(paths[0]) as both, Image.open(paths[1]) as ledger:
        assert both.height > ledger.height > 100
    assert sorted(path.name for path in tmp_path.iterdir()) == ["both.png", "ledger.png"]


def test_another_format(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert "<svg" in draw_accuracy(tmp_path / "drawn.svg", LEDGER, None).read_text()


def test_wrong_names_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"picture .*a\.jpg must end in \.png, \.svg, \.pdf; try .*a\.png"):
        check_picture(tmp_path / "a.jpg")
    with pytest.raises(UserError, match="folder .* does not exist; create it first"):
        check_picture(tmp_path / "none" / "a.png")


def test_without_matplotlib_the_remedy_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *args, **kwargs):
        if name.partition(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(UserError, match=r"install it: pip install 'edgenext-tvm\[pictures\]'"):
        check_picture(tmp_path / "a.png")


def test_an_unwritable_place_leaves_nothing(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "a.png").mkdir()
    with pytest.raises(UserError, match=r"cannot write .*a\.png"):
        draw_accuracy(tmp_path / "a.png", LEDGER, None)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
