"""Graph work of quantization: export with observers, and from observers to quantize/dequantize operators."""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

from edgenext_tvm.quantize.observers import ActivationObserver, ObserverSettings
from edgenext_tvm.quantize.quantizer import Int8Quantizer

DEQUANTIZE = torch.ops.quantized_decomposed.dequantize_per_tensor.default


def insert_observers(
    model: torch.nn.Module, example: torch.Tensor, settings: ObserverSettings, int16: frozenset[str] = frozenset()
) -> tuple[GraphModule, list[ActivationObserver]]:
    """Exports a float model for inputs of `example`'s shape; returns it with observers, and these, one per scale.

    int16: keys of the tensors that become int16.
    """
    with torch.no_grad():
        graph_module = torch.export.export(model, (example,)).module()
    quantizer = Int8Quantizer(settings, int16)
    return prepare_pt2e(graph_module, quantizer), quantizer.observers


def convert_observers(prepared: GraphModule, example: torch.Tensor) -> torch.export.ExportedProgram:
    """Replaces every observer by quantize and dequantize with its parameters, and weights by int8 constants."""
    with torch.no_grad():
        converted = convert_pt2e(prepared)
        _share_dequantize(converted)
        _drop_unused_tensors(converted)
        exported = torch.export.export(converted, (example,))
    _forget_origins(exported)
    return exported


def num_classes(graph_module: GraphModule) -> int:
    """Length of the last axis of the graph's first result."""
    output = next(node for node in graph_module.graph.nodes if node.op == "output")
    return int(output.all_input_nodes[0].meta["val"].shape[-1])


def _share_dequantize(graph_module: GraphModule) -> None:
    # torchao gives each reader a dequantize of its own; one per int8 tensor is all the lowering needs.
    first: dict[Node, Node] = {}
    for node in list(graph_module.graph.nodes):
        if node.op == "call_function" and node.target is DEQUANTIZE:
            kept = first.setdefault(node.args[0], node)
            if kept is not node:
                node.replace_all_uses_with(kept)
                graph_module.graph.erase_node(node)
    graph_module.recompile()


def _drop_unused_tensors(graph_module: GraphModule) -> None:
    # The float weights stay behind as parameters after folding; without this the program holds both forms.
    used = {node.target for node in graph_module.graph.nodes if node.op == "get_attr"}
    tensors = [*graph_module.named_parameters(), *graph_module.named_buffers()]
    for name in [name for name, _ in tensors if name not in used]:
        owner, _, attribute = name.rpartition(".")
        delattr(graph_module.get_submodule(owner), attribute)


def _forget_origins(exported: torch.export.ExportedProgram) -> None:
    # addresses of graphs in memory and folders of this machine: with them no two saved programs are the same bytes
    for node in exported.graph.nodes:
        for key in ("from_node", "stack_trace"):
            node.meta.pop(key, None)
