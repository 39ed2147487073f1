"""Which tensors of a float graph may be stored as int16 instead of int8: those whose every writer and reader can.

int16 tensors (12 bits, `kernels/wide.py`) have integer kernels for convolutions, Linear, LayerNorm, two-tensor adds,
the mean over the image and channel concatenations. Tables take 256 values and attention reads int8, so what an
activation function or a matrix product of two tensors reads or writes stays int8, and so does the network's input.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e.quantizer import EdgeOrNode, SharedQuantizationSpec
from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY

from edgenext_tvm.quantize.graph_keys import key_of, tensor_keys
from edgenext_tvm.quantize.quantizer import (
    SLICE_OPS,
    VIEW_OPS,
    WEIGHTED_OPS,
    Int8Quantizer,
    is_constant,
    is_tensor_add,
    source,
)

aten = torch.ops.aten

MAX_NORM_CHANNELS = 511
"""Of an int16 LayerNorm input: its sum of squares must fit int32."""
CHANNEL_AXIS = 1


@dataclass(frozen=True)
class WideGroup:
    """Quantized tensors of one scale, so of one width.

    keys: their names, in graph order. obstacle: why they must stay int8, "" if they may be int16.
    """

    keys: tuple[str, ...]
    obstacle: str


def wide_groups(graph_module: GraphModule) -> list[WideGroup]:
    """All quantized tensors of an exported float graph (not yet prepared), by scale, in graph order."""
    return _Finder(graph_module).groups()


def eligible_wide(graph_module: GraphModule) -> list[tuple[str, ...]]:
    """Keys of the tensors of an exported float graph that may be int16, those that share a scale together."""
    return [group.keys for group in wide_groups(graph_module) if not group.obstacle]


class _Finder:
    def __init__(self, graph_module: GraphModule) -> None:
        self.nodes = list(graph_module.graph.nodes)
        before = {node: node.meta[Q_ANNOTATION_KEY] for node in self.nodes if Q_ANNOTATION_KEY in node.meta}
        Int8Quantizer().annotate(graph_module)
        found = {node: node.meta.pop(Q_ANNOTATION_KEY) for node in self.nodes if Q_ANNOTATION_KEY in node.meta}
        for node, annotation in before.items():
            node.meta[Q_ANNOTATION_KEY] = annotation
        self.keys = tensor_keys(graph_module)
        self.specs: dict[EdgeOrNode, object] = {}
        for node, annotation in found.items():
            for piece, spec in annotation.input_qspec_map.items():
                # weights are quantized where a layer reads them; only concatenations and adds quantize activations so
                if node.target is aten.cat.default or is_tensor_add(node):
                    self.specs[(piece, node)] = spec
            if annotation.output_qspec is not None:
                self.specs[node] = annotation.output_qspec

    def groups(self) -> list[WideGroup]:
        members: dict[EdgeOrNode, list[EdgeOrNode]] = {}
        for tensor, spec in self.specs.items():
            root = spec.edge_or_node if isinstance(spec, SharedQuantizationSpec) else tensor
            members.setdefault(root, []).append(tensor)
        order = {node: index for index, node in enumerate(self.nodes)}
        groups = []
        for tensors in members.values():
            tensors.sort(key=lambda tensor: order[tensor if isinstance(tensor, Node) else tensor[1]])
            obstacle = next((found for found in map(self._obstacle, tensors) if found), "")
            groups.append(WideGroup(tuple(key_of(tensor, self.keys) for tensor in tensors), obstacle))
        return groups

    def _obstacle(self, tensor: EdgeOrNode) -> str:
        if not isinstance(tensor, Node):
            # requantized on its way into a concatenation, or a constant that is added
            return "" if self._works(tensor[1]) else self._no_kernel(tensor[1])
        if tensor.op == "placeholder":
            return "it is the network's input"
        if not self._works(tensor):
            return f"it is the result of {self.keys[tensor]}, which has no int16 kernel"
        return next((self._no_kernel(reader) for reader in self._readers(tensor) if not self._reads(reader)), "")

    def _no_kernel(self, reader: Node) -> str:
        return f"it is read by {self.keys.get(reader, 'the result')}, which has no int16 kernel"

    def _readers(self, tensor: Node) -> Iterator[Node]:
        for user in tensor.users:
            is_slice = user.target in SLICE_OPS and _along_channels(user)
            if user.op == "call_function" and (user.target in VIEW_OPS or is_slice):
                yield from self._readers(user)
            else:
                yield user

    def _reads(self, node: Node) -> bool:
        if node.target is aten.layer_norm.default:
            shape: list[int] = node.args[1]  # type: ignore[assignment]
            return self._works(node) and shape[-1] <= MAX_NORM_CHANNELS
        return self._works(node)

    def _works(self, node: Node) -> bool:
        """Whether an integer kernel computes the node, whatever of its operands and result is int16."""
        if node.op != "call_function":
            return False
        if node.target in WEIGHTED_OPS:
            return is_constant(node.args[1]) and _has_layer_kernel(node)  # type: ignore[arg-type]
        if node.target is aten.layer_norm.default:
            return len(node.args[1]) == 1  # type: ignore[arg-type]
        if node.target is aten.cat.default:
            return node in self.specs and _along_channels(node)
        if is_tensor_add(node):
            return node in self.specs and all(self._is_operand(arg, node) for arg in node.args)  # type: ignore[arg-type]
        return _is_image_mean(node)

    def _is_operand(self, arg: Node, add: Node) -> bool:
        made = source(arg, VIEW_OPS | SLICE_OPS)
        fused = made.target is aten.linear.default and is_constant(made.args[1])  # type: ignore[arg-type]
        return made in self.specs or (arg, add) in self.specs or fused


def _rank(node: Node) -> int:
    value = node.meta.get("val")
    return value.dim() if isinstance(value, torch.Tensor) else 0


def _along_channels(node: Node) -> bool:
    """Whether a slice or a concatenation runs along the channels of NCHW."""
    if node.target is aten.cat.default:
        rank, axis = _rank(node), node.args[1] if len(node.args) > 1 else 0
    elif isinstance(node.args[0], Node) and not isinstance(node.args[0].meta.get("val"), torch.Tensor):
        return True  # an item of a split, which was judged itself
    else:
        position = 1 if node.target in (aten.slice.Tensor, aten.select.int, aten.narrow.default) else 2
        rank, axis = _rank(node.args[0]), node.args[position] if len(node.args) > position else 0  # type: ignore[arg-type]
    return rank == 4 and axis in (CHANNEL_AXIS, CHANNEL_AXIS - 4)


def _has_layer_kernel(node: Node) -> bool:
    if node.target is not aten.conv2d.default:
        return True
    stride_to_groups = dict(enumerate(node.args))
    dilation, groups = stride_to_groups.get(5, [1, 1]), stride_to_groups.get(6, 1)
    weight = node.args[1].meta["val"]  # type: ignore[union-attr]
    is_depthwise = groups == weight.shape[0] and weight.shape[1] == 1
    return all(d == 1 for d in dilation) and (groups == 1 or is_depthwise)  # type: ignore[union-attr]


def _is_image_mean(node: Node) -> bool:
    if node.target is aten.adaptive_avg_pool2d.default:
        return list(node.args[1]) == [1, 1]  # type: ignore[arg-type]
    if node.target is not aten.mean.dim or _rank(node.args[0]) != 4:  # type: ignore[arg-type]
        return False
    return sorted(axis % 4 for axis in node.args[1]) == [2, 3]  # type: ignore[union-attr]
