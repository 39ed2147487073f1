"""Counts multiply-adds of any PyTorch module, exactly, per module and in total.

One multiply-add (MAdd, also MAC) is one product added to a sum. Counted: convolutions, linear layers and
matrix products (so also both products of attention). Not counted: normalisation, activation, softmax, sums,
scaling, pooling.

The figures published with EdgeNeXt (README and model file of the official repository; 260.58, 538.0, 1260.59
and 3840.93 M at 256x256) come from fvcore, which adds 5 operations per element for a LayerNorm called as one
operator (in the blocks and the head, not in stem and downsampling, which spell it out) and 2 for a BatchNorm
in inference. These are no multiply-adds of ours. Together with them our count gives the published figure to
all its digits: see the tests.
"""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten


@dataclass(frozen=True)
class MaddsReport:
    """Holds multiply-adds of one forward pass; `by_module` counts under the innermost module that ran."""

    by_module: dict[str, int]

    @property
    def total(self) -> int:
        """Sum over all modules."""
        return sum(self.by_module.values())

    def under(self, prefix: str) -> int:
        """Sum over the module called `prefix` and all within it; an empty prefix gives the total."""
        if not prefix:
            return self.total
        return sum(n for name, n in self.by_module.items() if name == prefix or name.startswith(prefix + "."))


def _convolution(out: Tensor, x: Tensor, weight: Tensor, *rest: Any) -> int:
    transposed = len(rest) > 4 and bool(rest[4])
    positions = x if transposed else out
    return positions.shape[0] * math.prod(positions.shape[2:]) * weight.numel()


def _matrix_product(out: Tensor, a: Tensor, b: Tensor) -> int:
    return out.numel() * a.shape[-1]


def _added_matrix_product(out: Tensor, added: Tensor, a: Tensor, b: Tensor) -> int:
    return out.numel() * a.shape[-1]


_COUNTERS: dict[Any, Callable[..., int]] = {
    aten.convolution.default: _convolution,
    aten.mm.default: _matrix_product,
    aten.bmm.default: _matrix_product,
    aten.addmm.default: _added_matrix_product,
    aten.baddbmm.default: _added_matrix_product,
}


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = [""]
        self.by_module: defaultdict[str, int] = defaultdict(int)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in _COUNTERS:
            self.by_module[self.stack[-1]] += _COUNTERS[func](out, *args)
        return out

    @contextmanager
    def names_of(self, model: nn.Module) -> Iterator[None]:
        """Keeps `stack` at the path of the innermost module that runs."""
        handles = []
        for name, module in model.named_modules():
            handles.append(module.register_forward_pre_hook(lambda m, x, name=name: self.stack.append(name)))
            handles.append(module.register_forward_hook(lambda m, x, y: (self.stack.pop(), None)[1]))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


@torch.no_grad()
def count_madds(model: nn.Module, *input_shapes: tuple[int, ...]) -> MaddsReport:
    """Counts the multiply-adds of `model` in eval mode on float32 inputs of these shapes; computes no value.

    For an image of S pixels a side: `count_madds(model, (1, 3, S, S))`. Linear in the batch size, but for
    what does not depend on the input (the projection of an unfolded position encoding).
    """
    # On the meta device shapes flow through the real operators, without arithmetic or memory.
    meta = copy.deepcopy(model).eval().to("meta")
    inputs = [torch.empty(shape, device="meta") for shape in input_shapes]
    counter = _Counter()
    with counter.names_of(meta), counter:
        meta(*inputs)
    return MaddsReport(dict(counter.by_module))
