"""The loss ledger: one row per stage between what was trained and what the board computes, measured on the same images.

Each row is compared with the first, the float network on inputs resized in float as in training, and with the row
above: what it adds is that stage's own doing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgenext_tvm.verify.compare import compare_logits, top_classes

# Stages in order; a build has those that make sense for it.
NATIVE = "float, native preprocessing"
PREPROCESSED = "float, library preprocessing"
WEIGHTS = "int8 weights, PyTorch"
SIMULATED = "all quantized, PyTorch"
HOST = "C library, this machine"
BOARD = "C library, board"
STAGES = (NATIVE, PREPROCESSED, WEIGHTS, SIMULATED, HOST, BOARD)


@dataclass(frozen=True)
class Closeness:
    """How close a stage's logits are to others'. agreement: share of images with the same best class; cosine: mean over
    images; kl: mean over images of KL(softmax(others) || softmax(these)), in nats.
    """

    agreement: float
    cosine: float
    kl: float


@dataclass(frozen=True)
class Row:
    """One stage. top1, top5: share of right answers, None without labels. to_float: against the first row;
    step: against the row above, None in the first; step_top1: change of top1 from the row above.
    """

    stage: str
    images: int
    top1: float | None
    top5: float | None
    to_float: Closeness
    step: Closeness | None
    step_top1: float | None

    def to_dict(self) -> dict[str, object]:
        return dataclasses.asdict(self)


def fill_ledger(logits: Mapping[str, np.ndarray], labels: np.ndarray | None) -> tuple[Row, ...]:
    """Rows of the stages in `logits`, float32 [B,K] each, in its order; labels: int [B]. The first one is the truth."""
    rows: list[Row] = []
    stages = list(logits)
    first = logits[stages[0]]
    for index, stage in enumerate(stages):
        found = logits[stage]
        top1, top5 = (None, None) if labels is None else _right(found, labels)
        above = rows[-1] if rows else None
        rows.append(
            Row(
                stage=stage,
                images=len(found),
                top1=top1,
                top5=top5,
                to_float=closeness(found, first),
                step=closeness(found, logits[stages[index - 1]]) if above else None,
                step_top1=top1 - above.top1 if above and top1 is not None and above.top1 is not None else None,
            )
        )
    return tuple(rows)


def closeness(logits: np.ndarray, others: np.ndarray) -> Closeness:
    """How close float [B,K] are to float [B,K]."""
    agreement = compare_logits(logits, others)
    return Closeness(agreement.top1_agreement, agreement.cosine, mean_kl(others, logits))


def mean_kl(p_logits: np.ndarray, q_logits: np.ndarray) -> float:
    """Mean over images of KL(softmax(p) || softmax(q)) in nats, float [B,K] each; 0 for equal logits."""
    log_p, log_q = _log_softmax(p_logits), _log_softmax(q_logits)
    # rounding can give -1e-17 where both are equal
    return max(0.0, float((np.exp(log_p) * (log_p - log_q)).sum(1).mean()))


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def _right(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    hits = top_classes(logits, 5) == labels[:, None]
    return float(hits[:, 0].mean()), float(hits.any(1).mean())
