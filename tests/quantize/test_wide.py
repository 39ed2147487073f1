"""Which tensors may be int16: those whose every writer and reader has an integer kernel for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule
from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY

from edgenext_tvm.api import compile_model, verify_build
from edgenext_tvm.codegen.program import read_program
from edgenext_tvm.kernels import Kernel, kernel_of
from edgenext_tvm.kernels.wide import QRANGE, WIDE_MAX_CHANNELS
from edgenext_tvm.model.fold import fold_for_quantization
from edgenext_tvm.quantize import open_images, quantize_model
from edgenext_tvm.quantize.accuracy import compare
from edgenext_tvm.quantize.observers import LEVELS
from edgenext_tvm.quantize.wide import MAX_NORM_CHANNELS, eligible_wide, wide_groups
from edgenext_tvm.source import load_float_model
from edgenext_tvm.verify.reference import load_lowered

PIECES = ("split_block.convs.0:conv2d", "split_block.convs.1:conv2d", "split_block:cat.in2", "split_block:cat")


def exported(model: nn.Module, *shape: int) -> GraphModule:
    with torch.no_grad():
        return torch.export.export(model.eval(), (torch.zeros(*shape),)).module()


def obstacles(model: nn.Module, *shape: int) -> dict[str, str]:
    return {key: group.obstacle for group in wide_groups(exported(model, *shape)) for key in group.keys}


@pytest.fixture(scope="module")
def small_graph(small_model: nn.Module) -> GraphModule:
    return exported(small_model, 1, 3, 32, 32)


def test_the_bounds_are_those_of_the_kernels() -> None:
    assert dict(LEVELS) == QRANGE
    assert MAX_NORM_CHANNELS == WIDE_MAX_CHANNELS


def test_layers_norms_sums_and_the_mean_are_eligible(small_graph: GraphModule) -> None:
    assert eligible_wide(small_graph) == [
        ("stem:conv2d",),
        ("conv_block.dw:conv2d",),
        ("conv_block.mlp.norm:layer_norm",),
        ("conv_block:add",),
        PIECES,
        ("split_block:add",),
        ("split_block:add#1.in1",),
        ("split_block:add#1",),
        ("split_block.norm:layer_norm",),
        ("split_block:add#2",),
        ("split_block:add#3",),
        (":mean",),
        ("norm:layer_norm",),
    ]


def test_the_others_say_what_is_in_the_way(small_graph: GraphModule) -> None:
    found = {group.keys: group.obstacle for group in wide_groups(small_graph) if group.obstacle}
    assert found == {
        ("input",): "it is the network's input",
        ("conv_block.mlp.fc1:linear",): "it is read by conv_block.mlp:gelu, which has no int16 kernel",
        ("conv_block.mlp:gelu",): "it is the result of conv_block.mlp:gelu, which has no int16 kernel",
        ("split_block.attention.qkv:linear",): "it is read by split_block.attention:unbind, which has no int16 kernel",
        ("split_block.attention:matmul#1",): "it is the result of split_block.attention:matmul#1, which has no "
        "int16 kernel",
    }


def test_the_names_are_those_of_the_recipe(small_graph: GraphModule, small_program) -> None:
    assert {key for group in wide_groups(small_graph) for key in group.keys} == set(small_program.recipe.activations)


def test_the_graph_is_left_as_it_was(small_model: nn.Module) -> None:
    graph = exported(small_model, 1, 3, 32, 32)
    node = list(graph.graph.nodes)[-2]
    node.meta[Q_ANNOTATION_KEY] = "mine"
    eligible_wide(graph)
    assert [n.meta[Q_ANNOTATION_KEY] for n in graph.graph.nodes if Q_ANNOTATION_KEY in n.meta] == ["mine"]


def test_every_eligible_tensor_can_be_quantized_to_int16(small_graph, small_model, small_preprocessing) -> None:
    keys = frozenset(key for group in eligible_wide(small_graph) for key in group)
    program = quantize_model(small_model, open_images("synthetic:2"), small_preprocessing, quiet=True, int16=keys)
    assert {key for key, params in program.recipe.activations.items() if params.dtype == "int16"} == keys


class Branches(nn.Module):
    """Readers and writers without an int16 kernel, one after the other."""

    def __init__(self, body: str, channels: int = 8) -> None:
        super().__init__()
        self.body = body
        self.conv = nn.Conv2d(3, channels, 1)
        self.norm = nn.LayerNorm(channels)
        self.dilated = nn.Conv2d(channels, channels, 3, padding=2, dilation=2)
        self.grouped = nn.Conv2d(channels, channels, 1, groups=2)
        self.last = nn.Conv2d(channels, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if self.body == "norm":
            y = self.norm(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        elif self.body == "pool":
            y = F.avg_pool2d(y, 2)
        elif self.body == "rows":
            y = torch.cat([y[:, :, 2:], y[:, :, :2]], dim=2)
        elif self.body == "sum":
            y = y + torch.sigmoid(y)
        else:
            y = getattr(self, self.body)(y)
        return self.last(y)


@pytest.mark.parametrize(
    ("body", "channels", "reader"),
    [
        ("norm", 512, "norm:layer_norm"),
        ("pool", 8, ":avg_pool2d"),
        ("rows", 8, ":slice"),
        ("sum", 8, ":sigmoid"),
        ("dilated", 8, "dilated:conv2d"),
        ("grouped", 8, "grouped:conv2d"),
    ],
)
def test_a_reader_without_a_kernel_keeps_a_tensor_int8(body: str, channels: int, reader: str) -> None:
    found = obstacles(Branches(body, channels), 1, 3, 4, 4)
    assert found["conv:conv2d"] == f"it is read by {reader}, which has no int16 kernel"


def test_a_norm_of_fewer_channels_reads_int16() -> None:
    assert obstacles(Branches("norm", 510), 1, 3, 4, 4)["conv:conv2d"] == ""


def lowered_kernels(build: Path) -> list[Kernel | None]:
    """The kernel of each step of a build, None for one generated from float operators."""
    program = read_program(load_lowered(build / "lowered.json"))
    return [kernel_of(program.functions[step.function]) for step in program.steps]


@pytest.mark.parametrize("board", ["host", pytest.param("rpi4", marks=[pytest.mark.slow, pytest.mark.qemu])])
def test_a_network_of_wide_tensors_compiles_to_integer_kernels_alone(
    small_graph, small_model, small_preprocessing, small_program, board: str, tmp_path: Path
) -> None:
    """Every eligible tensor is int16; what was compiled equals the NumPy twins and is closer to the float model."""
    keys = frozenset(key for group in eligible_wide(small_graph) for key in group)
    images = open_images("synthetic:6")
    program = quantize_model(small_model, images, small_preprocessing, quiet=True, int16=keys)
    narrow, wide = (compare(p, small_model, images, quiet=True) for p in (small_program, program))
    assert wide.signal_to_noise_db > narrow.signal_to_noise_db + 4
    built = compile_model(str(program.save(tmp_path / "wide.pt2")), board, out=tmp_path / "build")
    assert built.selftest
    kernels = lowered_kernels(built.build_dir)
    assert None not in kernels
    kinds = {kernel.kind for kernel in kernels if kernel is not None and kernel.is_wide}
    assert kinds == {"add", "conv2d", "dense", "depthwise", "global_avg_pool", "layer_norm", "rescale"}
    report = verify_build(built.build_dir, "synthetic:2")
    assert report.passed
    assert report.bit_identical_to_reference
    assert report.relative_l2_to_qdq is not None
    assert report.relative_l2_to_qdq < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("keys", [(":mean", "head.norm:layer_norm"), ()], ids=["head", "all"])
def test_edgenext_with_wide_tensors_keeps_its_bits(keys: tuple[str, ...], tmp_path: Path) -> None:
    """XXS with the head alone, or with everything eligible, as int16."""
    model = load_float_model("edgenext_xx_small", None, None, 64)
    groups = eligible_wide(exported(fold_for_quantization(model.model), 1, 3, 64, 64))
    int16 = frozenset(keys or (key for group in groups for key in group))
    images = open_images("synthetic:4")
    narrow, wide = (
        quantize_model(model.model, images, model.preprocessing, quiet=True, int16=chosen)
        for chosen in (frozenset(), int16)
    )
    before, after = (compare(program, model.model, images, quiet=True) for program in (narrow, wide))
    assert after.signal_to_noise_db > before.signal_to_noise_db
    built = compile_model(str(wide.save(tmp_path / "wide.pt2")), out=tmp_path / "build")
    assert built.selftest
    assert None not in lowered_kernels(built.build_dir)
