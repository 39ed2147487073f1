"""Chooses each tensor's range among those of several methods, by what each does to the logits.

No method is best for every tensor: a clipped value costs little where the next layer hardly reads it and much where a
LayerNorm divides by it. So the candidates are compared by the error that quantizing this one tensor leaves in the
logits, to first order: with d the tensor's quantization error and J the derivative of the logits by the tensor, the
mean of |J d|^2 over images. For a random v of unit normal numbers |J d|^2 is the mean of (v J d)^2 (Hutchinson 1990),
and one backward pass gives v J for all tensors at once; so all tensors' candidates are compared for the price of a few
passes an image, on images that the ranges were not chosen from.

It is not the default: it sees each tensor alone and to first order, and on the models measured the ranges of least
squared error were as good or better (benchmarks/calibration_images.py prints both).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.fx import GraphModule

from edgenext_tvm.quantize.observers import ActivationObserver

Candidates = dict[str, tuple[float, int]]

PERCENTILES = (99.9, 99.99, 99.999)
PROBES = 8
# Chance alone makes one of several equal candidates the best: the default gives way to clearly better ones only.
CLEARLY_BETTER = 0.9
DEFAULT = "mse"


def candidates(observer: ActivationObserver) -> Candidates:
    """Parameters by method name, all from what `observer` has seen."""
    found = {DEFAULT: observer.choose("mse")}
    found["minmax"] = observer.choose("minmax")
    for share in PERCENTILES:
        found[f"percentile {share:g}"] = observer.choose("percentile", percentile=share)
    found["mse^4"] = observer.choose("mse", mse_power=4.0)
    if observer.activation is not None:
        found["mse, plain"] = observer.choose("mse", through_activation=False)
    return found


def choose_ranges(prepared: GraphModule, observers: list[ActivationObserver], batches: Iterable[Tensor]) -> None:
    """Fixes every int8 observer of a calibrated graph to its best candidate; `method` then names it."""
    scores = {id(observer): _Scores(observer) for observer in observers if observer.width == "int8"}
    for parameter in prepared.parameters():
        parameter.requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for observer in observers:
        if id(observer) in scores:
            observer.instead = scores[id(observer)].watch
    try:
        for batch in batches:
            for _ in range(PROBES):
                with torch.enable_grad():
                    logits = prepared(batch)
                    probe = torch.randn(logits.shape, generator=generator)
                    (logits * probe).sum().backward()
    finally:
        for observer in observers:
            observer.instead = None
    for observer in observers:
        if id(observer) in scores:
            observer.method, params = scores[id(observer)].best()
            observer.freeze(*params)


class _Scores:
    """Sums (v J d)^2 of one observer's candidates."""

    def __init__(self, observer: ActivationObserver) -> None:
        self.observer = observer
        self.candidates = candidates(observer)
        self.errors = dict.fromkeys(self.candidates, 0.0)

    def watch(self, x: Tensor) -> Tensor:
        if not x.requires_grad:
            x = x.detach().requires_grad_()
        values = x.detach()
        x.register_hook(lambda gradient: self._add(values, gradient))
        return x

    def _add(self, values: Tensor, gradient: Tensor) -> None:
        done: dict[tuple[float, int], float] = {}
        for name, params in self.candidates.items():
            if params not in done:
                error = self.observer.quantized(values, params) - values
                done[params] = float((error * gradient).sum()) ** 2
            self.errors[name] += done[params]

    def best(self) -> tuple[str, tuple[float, int]]:
        name = min(self.errors, key=lambda candidate: self.errors[candidate])
        if self.errors[name] > CLEARLY_BETTER * self.errors[DEFAULT]:
            name = DEFAULT
        return name, self.candidates[name]
