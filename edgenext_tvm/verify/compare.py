"""Measures of how close one set of logits is to another; every input is float [B, K], B images of K classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Agreement:
    """relative_l2: ||a-b|| / ||b|| over all logits; cosine: mean over images; max_abs_error: in logit units.

    top1_agreement: share of images whose best class is the same. top5_agreement: share of images whose best class in
    the reference is among the five best here.
    """

    relative_l2: float
    cosine: float
    max_abs_error: float
    top1_agreement: float
    top5_agreement: float


def compare_logits(logits: np.ndarray, reference: np.ndarray) -> Agreement:
    """How close `logits` come to `reference`."""
    assert logits.shape == reference.shape and logits.ndim == 2 and len(logits) > 0
    a, b = logits.astype(np.float64), reference.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = np.divide((a * b).sum(1), norms, out=np.zeros(len(a)), where=norms > 0)
    best = b.argmax(1)
    return Agreement(
        relative_l2=float(np.linalg.norm(a - b) / max(np.linalg.norm(b), np.finfo(np.float64).tiny)),
        cosine=float(cosine.mean()),
        max_abs_error=float(np.abs(a - b).max()),
        top1_agreement=float((a.argmax(1) == best).mean()),
        top5_agreement=float((top_classes(a, 5) == best[:, None]).any(1).mean()),
    )


def top_classes(logits: np.ndarray, count: int) -> np.ndarray:
    """int64 [B, min(count, K)]: the best classes, best first, equal logits by class number."""
    return np.argsort(-logits, axis=1, kind="stable")[:, :count]


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share of images whose best class is the label. labels: int [B]."""
    return float((logits.argmax(1) == labels).mean())


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """True when shape, dtype and every byte agree; NaN equals the same NaN, and -0 differs from 0."""
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
