"""Stable names of the tensors of an exported graph.

A recipe must find its tensors again in a freshly exported graph, so a key is made from what the model's
author wrote (module path, operator, how many times that operator ran in that module) and never from
generated node names.
"""

from __future__ import annotations

from collections import Counter

from torch.fx import GraphModule, Node
from torchao.quantization.pt2e.quantizer import EdgeOrNode


def module_path(node: Node) -> str:
    """Dotted path of the innermost `nn.Module` whose forward created `node`; "" for the root module."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [entry[0] for entry in stack.values()]
    path = paths[-1] if paths else ""
    return path.removeprefix("L['self'].").removeprefix("L['self']")


def operator_name(node: Node) -> str:
    """Short operator name: `conv2d` for `aten.conv2d.default`; the target's last part for anything else."""
    schema_name = getattr(getattr(node.target, "_schema", None), "name", None)
    if schema_name is not None:
        return str(schema_name).split("::")[-1].rstrip("_")
    return str(getattr(node.target, "__name__", node.target)).split(".")[-1]


def tensor_keys(graph_module: GraphModule) -> dict[Node, str]:
    """Key of every node's output: `stages.0.blocks.0.mlp.fc1:linear`, `#1`, `#2`, ... appended to
    repetitions.

    Inputs are `input`, `input#1`, ...; parameters and buffers are `<qualified name>:constant`.
    """
    seen: Counter[str] = Counter()
    keys: dict[Node, str] = {}
    for node in graph_module.graph.nodes:
        if node.op == "placeholder":
            base = "input"
        elif node.op == "get_attr":
            base = f"{node.target}:constant"
        elif node.op == "call_function":
            base = f"{module_path(node)}:{operator_name(node)}"
        else:
            continue
        keys[node] = base if seen[base] == 0 else f"{base}#{seen[base]}"
        seen[base] += 1
    return keys


def key_of(edge_or_node: EdgeOrNode, keys: dict[Node, str]) -> str:
    """Key of an annotated tensor: a node's own, or `<consumer key>.in<position>` for one input of a
    consumer.
    """
    if isinstance(edge_or_node, Node):
        return keys[edge_or_node]
    producer, consumer = edge_or_node
    return f"{keys[consumer]}.in{consumer.all_input_nodes.index(producer)}"
