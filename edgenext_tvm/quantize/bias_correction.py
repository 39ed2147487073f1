"""Bias correction: the mean of each layer's output channels becomes that of the float model (Nagel et al. 2019,
"Data-free quantization through weight equalization and bias correction", section 4.2, measured on images).

Rounding and clipping shift a channel's mean a little, and every later layer sees the shift at every position. The
layers are corrected in network order, each behind the corrected ones before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from edgenext_tvm.quantize.fake_quantize import fake_quantized
from edgenext_tvm.quantize.graph_keys import module_path
from edgenext_tvm.quantize.quantizer import WEIGHTED_OPS, aten
from edgenext_tvm.quantize.weight_rounding import anchors

# Digits of a correction: it is a small number added to a bias that becomes an int32 anyway.
DIGITS = 4


@torch.no_grad()
def output_means(model: nn.Module, batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """Mean output of each channel of every layer with weights, float64 [C_OUT] by module path."""
    sums: dict[str, Tensor] = {}
    count = 0

    def watch(name: str, layer: nn.Module) -> Any:
        def see(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
            sums[name] = sums.get(name, 0.0) + _channel_mean(output, isinstance(layer, nn.Conv2d))  # type: ignore[operator]

        return layer.register_forward_hook(see)

    handles = [watch(name, layer) for name, layer in anchors(model).items()]
    try:
        for batch in batches:
            model(batch)
            count += 1
    finally:
        for handle in handles:
            handle.remove()
    return {name: total / count for name, total in sums.items()}


@torch.no_grad()
def correct_biases(
    prepared: GraphModule, means: dict[str, Tensor], batches: Iterable[Tensor]
) -> dict[str, tuple[float, ...]]:
    """Corrects the biases of a calibrated graph in place; returns what was added, by module path.

    means: the float model's (`output_means`) on the same batches. All images go through the graph together, operator
    by operator, so that it is run once and not once for each layer. Layers without a bias and layers that run twice
    are left alone.
    """
    layers = _correctable(prepared, means)
    corrections: dict[str, tuple[float, ...]] = {}
    values: dict[Node, list[Any]] = {}
    inputs = list(batches)
    interpreter = torch.fx.Interpreter(prepared)
    last_reader = {used: node for node in prepared.graph.nodes for used in node.all_input_nodes}
    done_after: dict[Node, list[Node]] = {}
    for used, reader in last_reader.items():
        done_after.setdefault(reader, []).append(used)
    with fake_quantized(prepared):
        for node in prepared.graph.nodes:
            if node.op == "placeholder":
                values[node] = inputs
            elif node.op == "get_attr":
                values[node] = [interpreter.fetch_attr(node.target)] * len(inputs)
            elif node.op != "output":
                values[node] = [_run(interpreter, node, values, index) for index in range(len(inputs))]
            if node in layers:
                path, bias = layers[node]
                is_conv = node.target is aten.conv2d.default
                found = torch.stack([_channel_mean(value, is_conv) for value in values[node]]).mean(0)
                offsets = tuple(float(f"{value:.{DIGITS}g}") for value in (means[path] - found).tolist())
                corrections[path] = offsets
                owner, _, attribute = bias.rpartition(".")
                corrected = corrected_bias(prepared.get_parameter(bias), offsets)
                setattr(prepared.get_submodule(owner), attribute, nn.Parameter(corrected, requires_grad=False))
                shift = torch.tensor(offsets, dtype=torch.float32).reshape((-1, 1, 1) if is_conv else (-1,))
                values[node] = [value + shift for value in values[node]]
            for used in done_after.get(node, ()):
                del values[used]
    return corrections


def corrected_bias(bias: Tensor, offsets: tuple[float, ...]) -> Tensor:
    """bias + offsets, float32 [C_OUT]."""
    return bias.detach() + torch.tensor(offsets, dtype=torch.float32)


def _correctable(prepared: GraphModule, means: dict[str, Tensor]) -> dict[Node, tuple[str, str]]:
    # node -> module path, name of its bias
    weighted = [node for node in prepared.graph.nodes if node.op == "call_function" and node.target in WEIGHTED_OPS]
    runs = Counter(module_path(node) for node in weighted)
    found = {}
    for node in weighted:
        bias = node.args[2] if len(node.args) > 2 else None
        path = module_path(node)
        is_own = isinstance(bias, Node) and bias.op == "get_attr" and bias.target == f"{path}.bias"
        if is_own and runs[path] == 1 and path in means:
            found[node] = (path, f"{path}.bias")
    return found


def _run(interpreter: torch.fx.Interpreter, node: Node, values: dict[Node, list[Any]], index: int) -> Any:
    args, kwargs = (torch.fx.node.map_arg(part, lambda used: values[used][index]) for part in (node.args, node.kwargs))
    return getattr(interpreter, node.op)(node.target, args, kwargs)


def _channel_mean(output: Tensor, is_conv: bool) -> Tensor:
    return (output.movedim(1, -1) if is_conv else output).flatten(0, -2).double().mean(0)
