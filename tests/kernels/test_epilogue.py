from __future__ import annotations

import numpy as np

from edgenext_tvm.kernels.epilogue import WIDE_RESIDUAL_BITS, epilogue_names, epilogue_types, reference_epilogue

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


def test_a_wide_result_has_a_wide_range() -> None:
    q = reference_epilogue("none", np.array([[10, 5000, -5000]], np.int32), MULT, QP, (), "int16")
    assert q.dtype == np.int16
    assert q.tolist() == [[9, 2047, -2048]]


def test_a_wide_residual_has_more_fraction_bits_than_the_layer() -> None:
    # acc / 2 + (r - 1) / 4, with F = 2 for the layer's part and F + WIDE_RESIDUAL_BITS for the residual's.
    r = np.array([[3, 3, 0]], np.int16)
    rp = np.array([1, 1 << WIDE_RESIDUAL_BITS], np.int32)
    extra = (r, rp, np.array([2.0 ** -(2 + WIDE_RESIDUAL_BITS)], np.float32))
    assert reference_epilogue("residual", ACC, MULT * 4, QP, extra).tolist() == [[10, -1, 127]]
    assert reference_epilogue("residual", ACC, MULT * 4, QP, extra, "int16").tolist() == [[10, -1, 154]]


def test_names_and_types_agree() -> None:
    for epilogue in ("none", "lut", "residual"):
        assert len(epilogue_names(epilogue)) == len(epilogue_types(epilogue, (4, 8)))
    assert epilogue_types("residual", (4, 8))[0] == ((4, 8), "int8")
    assert epilogue_types("residual", (4, 8), "int16")[0] == ((4, 8), "int16")
