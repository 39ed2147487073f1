from __future__ import annotations

import numpy as np

from edgenext_tvm.kernels.epilogue import epilogue_names, epilogue_types, reference_epilogue

ACC = np.array([[10, -11, 300]], np.int32)
MULT = np.full(3, 0.5, np.float32)
QP = np.array([0, 4], np.int32)


def test_none_requantizes() -> None:
    assert reference_epilogue("none", ACC, MULT, QP, ()).tolist() == [[9, -2, 127]]


def test_lut_looks_up_the_requantized_value() -> None:
    table = (-np.arange(-128, 128)).clip(-128, 127).astype(np.int8)
    assert reference_epilogue("lut", ACC, MULT, QP, (table,)).tolist() == [[-9, 2, -127]]


def test_residual_is_rounded_once() -> None:
    # acc / 2 + (r - 1) / 4 with F = 2: 5 + 0.5 -> 5.5 -> 6; -5.5 + 0.5 -> -5; 150 - 0.25 saturates.
    r = np.array([[3, 3, 0]], np.int8)
    extra = (r, np.array([1, 1], np.int32), np.array([0.25], np.float32))
    assert reference_epilogue("residual", ACC, MULT * 4, QP, extra).tolist() == [[10, -1, 127]]


def test_names_and_types_agree() -> None:
    for epilogue in ("none", "lut", "residual"):
        assert len(epilogue_names(epilogue)) == len(epilogue_types(epilogue, (4, 8)))
    assert epilogue_types("residual", (4, 8))[0] == ((4, 8), "int8")
