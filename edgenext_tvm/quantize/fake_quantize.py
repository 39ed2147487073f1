"""Runs a graph with observers as the int8 program it will become, before it is converted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.fx import GraphModule

from edgenext_tvm.quantize.observers import WEIGHT_QMAX, ActivationObserver, PerChannelWeightObserver


@contextmanager
def fake_quantized(prepared: GraphModule) -> Iterator[None]:
    """Within the block every observer of `prepared` quantizes and dequantizes with its own parameters.

    Activations must have been seen or fixed; weights' scales are those of their values now.
    """
    observers = [m for m in prepared.modules() if isinstance(m, ActivationObserver | PerChannelWeightObserver)]
    for observer in observers:
        observer.instead = observer.quantized if isinstance(observer, ActivationObserver) else _quantized_weight
    try:
        yield
    finally:
        for observer in observers:
            observer.instead = None


def _quantized_weight(weight: torch.Tensor) -> torch.Tensor:
    observer = PerChannelWeightObserver()
    observer(weight)
    scale, zero_point = observer.calculate_qparams()
    return torch.fake_quantize_per_channel_affine(weight, scale, zero_point.int(), 0, -WEIGHT_QMAX, WEIGHT_QMAX)
