"""CountProducts: generated kernels state the multiply-adds that the model's own counter finds."""

from __future__ import annotations

import pytest
import torch
from tvm.tirx import PrimFunc

from edgenext_tvm.frontend import import_program
from edgenext_tvm.model.madds import count_madds
from edgenext_tvm.passes.pipeline import lower_float
from edgenext_tvm.passes.rewrite import bindings_of, op_name


class Layers(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 4, 4)
        self.depthwise = torch.nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm = torch.nn.LayerNorm(8)
        self.linear = torch.nn.Linear(8, 24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.depthwise(self.conv(x)).permute(0, 2, 3, 1)).reshape(1, 16, 8)
        q = self.linear(y)
        return (q.transpose(1, 2) @ q).softmax(-1).mean(1)


@pytest.mark.parametrize(
    ("model", "expected"),
    [(Layers(), 16 * (8 * 48 + 8 * 9 + 8 * 24 + 24 * 24))],
)
def test_macs_are_those_of_the_layers(model: torch.nn.Module, expected: int) -> None:
    x = torch.randn(1, 3, 16, 16)
    mod = lower_float(import_program(torch.export.export(model.eval(), (x,))))
    calls = [value.args[0] for _, value in bindings_of(mod) if op_name(value) == "call_tir"]
    functions = [mod[gv] for gv in calls]
    assert all(isinstance(func, PrimFunc) for func in functions)
    assert sum(int(func.attrs.get("enx.macs", 0)) for func in functions) == expected


def test_the_networks_macs_are_those_of_the_counter() -> None:
    from edgenext_tvm.model.edgenext import build_model

    model = build_model("edgenext_xx_small", 10, 64, seed=0).eval()
    model.fold_position_encoding()
    mod = lower_float(import_program(torch.export.export(model, (torch.randn(1, 3, 64, 64),))))
    calls = [value.args[0] for _, value in bindings_of(mod) if op_name(value) == "call_tir"]
    macs = sum(int(mod[gv].attrs.get("enx.macs", 0)) for gv in calls)
    assert macs == count_madds(model, (1, 3, 64, 64)).total
