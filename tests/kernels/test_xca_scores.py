from __future__ import annotations

import numpy as np
import pytest

from edgenext_tvm.kernels import XcaScores
from edgenext_tvm.kernels.qparams import xca_params
from edgenext_tvm.kernels.sample_inputs import sample_inputs

CASES = [XcaScores(1, 1, 1), XcaScores(5, 12, 4), XcaScores(49, 88, 4), XcaScores(9, 34, 2)]


@pytest.mark.parametrize("kernel", CASES, ids=lambda kernel: kernel.task_hint)
def test_tir_gives_the_twins_bits(kernel: XcaScores, assert_twin_matches) -> None:
    assert_twin_matches(kernel)


def softmax_over_keys(qkv: np.ndarray, zero_point: int, temperature: np.ndarray, heads: int) -> np.ndarray:
    t, c3 = qkv.shape
    real = qkv.astype(np.float64).reshape(t, 3, heads, c3 // 3 // heads) - zero_point
    q, k = real[:, 0], real[:, 1]
    q, k = q / np.linalg.norm(q, axis=0), k / np.linalg.norm(k, axis=0)
    logits = np.einsum("thi,thj->hij", q, k) * temperature[:, None, None]
    weights = np.exp(logits - logits.max(axis=2, keepdims=True))
    return weights.transpose(0, 2, 1)


@pytest.mark.parametrize("temperature", [0.5, 2.0, 20.0])
def test_twin_is_the_real_softmax_up_to_its_norm(temperature: float) -> None:
    kernel = XcaScores(64, 48, 4)
    qkv, zp, _, _ = sample_inputs(kernel, 5)
    temperatures = np.linspace(0.8, 1.2, 4) * temperature
    e = kernel.reference(qkv, zp, *xca_params(temperatures))
    expected = 127 * softmax_over_keys(qkv, int(zp[0]), temperatures, 4)
    # Logits are rounded to 1/256 of a power of two: 127 * (2^(1/256) - 1) = 0.34 of a level, and half a level of e.
    assert np.abs(e - expected).max() < 1.0
    assert e.max(axis=1).min() == 127


def test_channels_without_any_signal_attend_evenly() -> None:
    kernel = XcaScores(6, 8, 2)
    _, _, tau, table = sample_inputs(kernel)
    e = kernel.reference(np.full((6, 24), -9, np.int8), np.array([-9], np.int32), tau, table)
    assert (e == 127).all()


def test_workspaces_are_the_gram_matrix_and_the_norms() -> None:
    kernel = XcaScores(64, 48, 4)
    assert kernel.output_types()[-kernel.num_workspaces :] == [((48, 12), "int32"), ((2, 48), "int32")]
