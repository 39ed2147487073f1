"""Nobody races with a wrong answer: logits are compared with the float model's first."""

from __future__ import annotations

import numpy as np

from benchmarks.peers.failures import PeerUnavailable


def least_cosine(logits: np.ndarray, expected: np.ndarray) -> float:
    """The least cosine similarity of corresponding rows, float32 [N, classes] each, without their mean: a constant
    added to all logits changes no answer and must not hide a wrong one. NaN where a row is constant or not finite.
    """
    a = logits.astype(np.float64) - logits.mean(axis=1, keepdims=True, dtype=np.float64)
    b = expected.astype(np.float64) - expected.mean(axis=1, keepdims=True, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(((a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))).min())


def check_logits(logits: np.ndarray, expected: np.ndarray, least: float) -> float:
    """The least cosine, above `least`; else PeerUnavailable."""
    if logits.shape != expected.shape:
        raise PeerUnavailable(f"wrong answer: logits of shape {list(logits.shape)}, expected {list(expected.shape)}")
    cosine = least_cosine(logits, expected)
    if not cosine > least:
        raise PeerUnavailable(f"wrong answer: cosine {cosine:.4f} against the float model, must be over {least}")
    return cosine
