"""Decides which tensors of an exported float graph become int8, as a torchao PT2E quantizer.

The rules, by operator and not by model:

- The graph's input, and the output of every convolution, Linear, LayerNorm, BatchNorm, activation, mean and
  two-tensor add: int8.
- A Linear whose only reader, through views, is such an add stays float: Linear and add are one integer
  kernel.
- Concatenation: its result and the pieces computed for it alone share one scale; a piece that is a slice of
  another tensor is requantized to that scale on its way in.
- A constant that is added or concatenated: int8.
- Whatever no rule names (softmax, matmul, normalize, ...) forms a float island, and an island's result
  becomes int8 where a convolution or Linear reads it. So XCA is one island from the qkv Linear's int8
  output to the last matmul's int8 result.
- Views (reshape, permute, split, slice, ...) carry their input's scale: nothing is inserted around them.
- The graph's results stay float.

Only outputs are annotated, so each int8 tensor has exactly one quantize/dequantize pair, right after the
operator that made it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable

import torch
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e import ObserverOrFakeQuantize
from torchao.quantization.pt2e.quantizer import (
    EdgeOrNode,
    QuantizationAnnotation,
    QuantizationSpec,
    Quantizer,
    SharedQuantizationSpec,
)
from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY

from edgenext_tvm.errors import UserError
from edgenext_tvm.quantize.graph_keys import key_of, tensor_keys
from edgenext_tvm.quantize.observers import (
    LEVELS,
    WEIGHT_QMAX,
    ActivationObserver,
    Dtype,
    ObserverSettings,
    PerChannelWeightObserver,
)

aten = torch.ops.aten

WEIGHTED_OPS = {aten.conv2d.default, aten.linear.default}
ACTIVATION_OPS = {
    aten.gelu.default: "gelu",
    aten.gelu_.default: "gelu",
    aten.hardswish.default: "hardswish",
    aten.hardswish_.default: "hardswish",
    aten.relu.default: "relu",
    aten.relu_.default: "relu",
}
ADD_OPS = {aten.add.Tensor, aten.add_.Tensor}
OTHER_QUANTIZED_OPS = {
    aten.layer_norm.default,
    aten.batch_norm.default,
    aten.mean.dim,
    aten.adaptive_avg_pool2d.default,
    aten.avg_pool2d.default,
}
VIEW_OPS = {
    aten.view.default,
    aten.reshape.default,
    aten._unsafe_view.default,
    aten.permute.default,
    aten.transpose.int,
    aten.t.default,
    aten.flatten.using_ints,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.squeeze.default,
    aten.unsqueeze.default,
    aten.contiguous.default,
    aten.clone.default,
    aten.alias.default,
    aten.detach.default,
    aten.dropout.default,
}
SLICE_OPS = {
    aten.split.Tensor,
    aten.split_with_sizes.default,
    aten.chunk.default,
    aten.slice.Tensor,
    aten.select.int,
    aten.narrow.default,
    aten.unbind.int,
    operator.getitem,
}


def source(node: Node, through: Iterable[Callable]) -> Node:
    """First tensor behind `node` that no operator of `through` made; inputs of those operators come first."""
    while node.op == "call_function" and node.target in through:
        node = node.all_input_nodes[0]
    return node


def readers(node: Node) -> list[Node]:
    """The nodes that read the values of `node`, directly or through views."""
    found: list[Node] = []
    for user in node.users:
        found += readers(user) if user.op == "call_function" and user.target in VIEW_OPS else [user]
    return found


def is_constant(node: Node) -> bool:
    """True when no graph input can change the value."""
    if node.op == "get_attr":
        return True
    return node.op == "call_function" and bool(node.all_input_nodes) and all(map(is_constant, node.all_input_nodes))


def is_tensor_add(node: Node) -> bool:
    """True for `a + b` of two tensors (alpha 1), at least one of which is computed; false for `a + 2.0`."""
    return (
        node.op == "call_function"
        and node.target in ADD_OPS
        and len(node.args) == 2
        and node.kwargs.get("alpha", 1) == 1
        and all(isinstance(arg, Node) for arg in node.args)
        and not is_constant(node)
    )


class Int8Quantizer(Quantizer):
    """Annotates a graph by this file's rules; `observers` then holds one observer per scale, in graph order.

    int16: keys of the tensors that become int16 instead of int8. Fails with `UserError` for a key that is no
    quantized tensor, and where tensors of one scale differ in width.
    """

    def __init__(self, settings: ObserverSettings | None = None, int16: frozenset[str] = frozenset()) -> None:
        self.settings = settings or ObserverSettings()
        self.int16 = int16
        self.observers: list[ActivationObserver] = []
        self._keys: dict[Node, str] = {}

    def annotate(self, model: GraphModule) -> GraphModule:
        self._keys = tensor_keys(model)
        outputs = self._quantized_outputs(model)
        specs: dict[Node, QuantizationSpec | SharedQuantizationSpec] = {n: self._activation_spec(n) for n in outputs}
        edges: dict[Node, dict[Node, QuantizationSpec | SharedQuantizationSpec]] = {}
        for node in model.graph.nodes:
            if node.op == "call_function" and node.target in WEIGHTED_OPS and is_constant(node.args[1]):
                edges.setdefault(node, {})[node.args[1]] = _weight_spec()
            if is_tensor_add(node):
                for arg in node.args:
                    if is_constant(arg):
                        edges.setdefault(node, {})[arg] = self._activation_spec(node, (arg, node))
            if node.op == "call_function" and node.target is aten.cat.default:
                self._share_concatenation(node, specs, edges)
        for node in [*specs, *edges]:
            node.meta[Q_ANNOTATION_KEY] = QuantizationAnnotation(
                input_qspec_map=dict(edges.get(node, {})),
                output_qspec=specs.get(node),
                allow_implicit_sharing=False,
                _annotated=True,
            )
        return model

    def validate(self, model: GraphModule) -> None:
        """Nothing to refuse: operators without a rule stay float."""

    def prepare_obs_or_fq_callback(
        self, model: GraphModule, edge_or_node_to_obs_or_fq: dict[EdgeOrNode, ObserverOrFakeQuantize]
    ) -> None:
        keys = tensor_keys(model)
        for edge_or_node, observer in edge_or_node_to_obs_or_fq.items():
            if isinstance(observer, ActivationObserver):
                observer.keys.append(key_of(edge_or_node, keys))
                if observer not in self.observers:
                    self.observers.append(observer)
        self._check_int16()

    def _check_int16(self) -> None:
        unknown = self.int16.difference(*[observer.keys for observer in self.observers])
        if unknown:
            raise UserError(
                f"tensor {min(unknown)!r} cannot be int16: the model quantizes no tensor of that name; "
                "allowed are the names under 'activations' of its recipe"
            )
        for observer in self.observers:
            narrow = [key for key in observer.keys if key not in self.int16]
            if narrow and len(narrow) < len(observer.keys):
                raise UserError(
                    f"tensors {', '.join(observer.keys)} share one scale, so they are of one width; "
                    f"make {narrow[0]!r} int16 too, or none of them"
                )

    def _quantized_outputs(self, model: GraphModule) -> list[Node]:
        # In graph order: torchao wants the first tensor of a sharing group before those that refer to it.
        chosen: set[Node] = set()
        for node in model.graph.nodes:
            if node.op == "placeholder" and _is_float_tensor(node):
                chosen.add(node)
            if node.op != "call_function":
                continue
            if _always_quantized(node) and not is_constant(node):
                chosen.add(node)
            if node.target in WEIGHTED_OPS:
                island_result = source(node.args[0], VIEW_OPS | SLICE_OPS)
                if not is_constant(island_result):
                    chosen.add(island_result)
        for node in [n for n in model.graph.nodes if n in chosen]:
            if all(reader.op == "output" for reader in readers(node)) or _fuses_into_add(node, chosen):
                chosen.discard(node)
        return [node for node in model.graph.nodes if node in chosen]

    def _activation_spec(self, node: Node, tensor: EdgeOrNode | None = None) -> QuantizationSpec:
        """Spec of `tensor`, by default what `node` returns; `node`'s readers tell the activation behind it."""
        width: Dtype = "int16" if key_of(tensor or node, self._keys) in self.int16 else "int8"
        low, high = LEVELS[width]
        functions = {ACTIVATION_OPS.get(reader.target) for reader in readers(node)}  # type: ignore[arg-type]
        function = functions.pop() if len(functions) == 1 else None
        return QuantizationSpec(
            dtype=getattr(torch, width),
            observer_or_fake_quant_ctr=ActivationObserver.with_args(
                settings=self.settings, activation=function, width=width
            ),
            quant_min=low,
            quant_max=high,
            qscheme=torch.per_tensor_affine,
        )

    def _share_concatenation(self, cat: Node, specs: dict, edges: dict) -> None:
        root: EdgeOrNode | None = None
        for piece in cat.args[0]:  # type: ignore[union-attr]
            made_here = source(piece, VIEW_OPS)
            owned = isinstance(specs.get(made_here), QuantizationSpec) and made_here.op == "call_function"
            if owned and root is None:
                root = made_here
            elif owned and made_here is not root:
                specs[made_here] = SharedQuantizationSpec(root)
        for piece in cat.args[0]:  # type: ignore[union-attr]
            made_here = source(piece, VIEW_OPS)
            if made_here is root or specs.get(made_here) == SharedQuantizationSpec(root):
                continue
            edges.setdefault(cat, {})[piece] = (
                self._activation_spec(cat, (piece, cat)) if root is None else SharedQuantizationSpec(root)
            )
            root = root or (piece, cat)
        if cat in specs:
            specs[cat] = SharedQuantizationSpec(root)


def _always_quantized(node: Node) -> bool:
    return (
        node.target in WEIGHTED_OPS
        or node.target in ACTIVATION_OPS
        or node.target in OTHER_QUANTIZED_OPS
        or node.target is aten.cat.default
        or is_tensor_add(node)
    ) and _is_float_tensor(node)


def _is_float_tensor(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dtype == torch.float32


def _fuses_into_add(node: Node, chosen: set[Node]) -> bool:
    if node.target is not aten.linear.default:
        return False
    found = readers(node)
    if len(found) != 1 or not is_tensor_add(found[0]):
        return False
    others = [source(arg, VIEW_OPS | SLICE_OPS) for arg in found[0].args]
    # The other operand must stay int8: an add of two float Linear results has no integer kernel.
    return all(other is node or other in chosen or is_constant(other) for other in others) and others.count(node) == 1


def _weight_spec() -> QuantizationSpec:
    return QuantizationSpec(
        dtype=torch.int8,
        observer_or_fake_quant_ctr=PerChannelWeightObserver,
        quant_min=-WEIGHT_QMAX,
        quant_max=WEIGHT_QMAX,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
    )
