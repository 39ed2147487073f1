"""A float graph that computes as its int8 program will, and can be trained: fake quantization by the compiler's rules.

Gradients pass rounding unchanged and stop where a value is clipped (straight-through estimator).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from edgenext_tvm.quantize import torchao_import  # noqa: F401  # isort: skip  (must come first)
from edgenext_tvm.quantize.insert_qdq import insert_observers
from edgenext_tvm.quantize.observers import (
    MIN_SCALE,
    WEIGHT_QMAX,
    ActivationObserver,
    Histogram,
    ObserverSettings,
    PerChannelWeightObserver,
)

OBSERVER = ObserverSettings(method="mse", samples_per_tensor=1 << 16)


class FakeQuantizedTensor(nn.Module):
    """Rounds a tensor to its int8 grid. While `watching` it only looks at the values; `choose` then sets the grid."""

    scale: Tensor
    zero_point: Tensor

    def __init__(self, observer: ActivationObserver) -> None:
        super().__init__()
        self.observer = observer
        self.watching = False
        self.register_buffer("scale", torch.ones(()), persistent=False)
        self.register_buffer("zero_point", torch.zeros((), dtype=torch.int32), persistent=False)

    def watch(self) -> None:
        """Forgets what was seen before."""
        self.watching, self.observer.fixed = True, None
        self.observer.histogram = Histogram(self.observer.settings.bins)

    def choose(self) -> None:
        """Takes the range that calibration would."""
        scale, zero_point = self.observer.qparams()
        self.scale.fill_(scale)
        self.zero_point.fill_(zero_point)
        self.watching = False

    def forward(self, x: Tensor) -> Tensor:
        if self.watching:
            return self.observer(x.cpu()).to(x.device)
        low, high = self.observer.quant_min, self.observer.quant_max
        return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero_point, low, high)


class FakeQuantizedWeight(nn.Module):
    """Rounds a weight [C_OUT, ...] to 127 levels either side of zero, its largest value of each channel the last."""

    def forward(self, weight: Tensor) -> Tensor:
        peak = weight.detach().abs().flatten(1).amax(1)
        scale = (peak / WEIGHT_QMAX).clamp(min=MIN_SCALE)
        zero = torch.zeros_like(scale, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -WEIGHT_QMAX, WEIGHT_QMAX)


class FakeQuantizedGraph(nn.Module):
    """`model` (of inputs [batch_size,3,S,S], without BatchNorm) with int8 arithmetic simulated in float32.

    All float parameters train. Ranges are part of the state, and no gradient changes them: `measure_ranges` does.
    """

    def __init__(self, model: nn.Module, batch_size: int, input_size: int) -> None:
        super().__init__()
        self.batch_size = batch_size
        graph, _ = insert_observers(model, torch.zeros(batch_size, 3, input_size, input_size), OBSERVER)
        self.graph: GraphModule = graph
        self.tensors = _replace_observers(graph)
        for parameter in graph.parameters():
            parameter.requires_grad_(True)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N,K] of [N,3,S,S], N at most the batch size."""
        missing = self.batch_size - len(x)
        padded = torch.cat([x, x.new_zeros(missing, *x.shape[1:])]) if missing else x
        return self.graph(padded)[: len(x)]

    def train(self, mode: bool = True) -> FakeQuantizedGraph:
        """Nothing in the graph differs between training and evaluation, and exported graphs refuse the switch."""
        self.training = mode
        return self

    @torch.no_grad()
    def measure_ranges(self, batches: Iterable[Tensor]) -> None:
        """Chooses every tensor's range anew, from network inputs of the batch size."""
        for tensor in self.tensors:
            tensor.watch()
        for batch in batches:
            self.graph(batch)
        for tensor in self.tensors:
            tensor.choose()

    def weights(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Of a state_dict of this module, the parameters under the names that they have in `model`."""
        own = {name for name, _ in self.graph.named_parameters()}
        return {name: state[f"graph.{name}"] for name in own}

    def get_extra_state(self) -> Tensor:
        """Scales' bits and zero points, int64 [2, tensors]: integers, so that no moving average blurs them."""
        scales = torch.stack([tensor.scale for tensor in self.tensors]).cpu().view(torch.int32).long()
        return torch.stack([scales, torch.stack([tensor.zero_point for tensor in self.tensors]).cpu().long()])

    def set_extra_state(self, state: Tensor) -> None:
        """Takes over what `get_extra_state` gave."""
        scales = state[0].int().cpu().view(torch.float32)
        for tensor, scale, zero_point in zip(self.tensors, scales, state[1], strict=True):
            tensor.scale.fill_(float(scale))
            tensor.zero_point.fill_(int(zero_point))


def _replace_observers(graph: GraphModule) -> list[FakeQuantizedTensor]:
    # tensors that share a scale share the observer
    tensors: dict[ActivationObserver, FakeQuantizedTensor] = {}
    for name, module in list(graph.named_modules(remove_duplicate=False)):
        owner, _, attribute = name.rpartition(".")
        if isinstance(module, ActivationObserver):
            tensors.setdefault(module, FakeQuantizedTensor(module))
            setattr(graph.get_submodule(owner), attribute, tensors[module])
        elif isinstance(module, PerChannelWeightObserver):
            setattr(graph.get_submodule(owner), attribute, FakeQuantizedWeight())
    return list(tensors.values())
