"""Keys of tensors: made of module paths and operators, equal for every export of the same network."""

from __future__ import annotations

import torch
from torch import nn

from edgenext_tvm.quantize.graph_keys import key_of, tensor_keys


class Sums(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 3, 1), nn.GELU())
        self.register_buffer("offset", torch.ones(1))

    def forward(self, x):
        y = self.body(x)
        return y + x + self.offset


def exported(batch: int):
    return torch.export.export(Sums().eval(), (torch.zeros(batch, 3, 4, 4),)).module()


def test_keys_name_module_operator_and_repetition() -> None:
    keys = list(tensor_keys(exported(1)).values())
    assert [key for key in keys if not key.endswith(":constant")][:5] == [
        "input",
        "body.0:conv2d",
        "body.1:gelu",
        ":add",
        ":add#1",
    ]
    assert "offset:constant" in keys


def test_keys_do_not_depend_on_the_batch_size() -> None:
    wanted = set(tensor_keys(exported(1)).values())
    assert {key for key in wanted if "_guards" not in key} <= set(tensor_keys(exported(3)).values())


def test_edge_key_names_the_reader_and_its_input() -> None:
    graph_module = exported(1)
    keys = tensor_keys(graph_module)
    nodes = {key: node for node, key in keys.items()}
    last_add = nodes[":add#1"]
    assert key_of((last_add.all_input_nodes[1], last_add), keys) == ":add#1.in1"
    assert key_of(last_add, keys) == ":add#1"
