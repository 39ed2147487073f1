"""Which tensors become int8, read off the quantize/dequantize graph."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.fx import Node

from edgenext_tvm.errors import UserError
from edgenext_tvm.model.edgenext import build_model
from edgenext_tvm.model.init_random import init_random
from edgenext_tvm.quantize import ObserverSettings, Preprocessing, open_images, quantize_model, quantize_with_recipe
from edgenext_tvm.quantize.accuracy import compare
from edgenext_tvm.quantize.graph_keys import tensor_keys
from edgenext_tvm.quantize.observers import INT16_STEPS, LEVELS
from edgenext_tvm.quantize.quantizer import SLICE_OPS, VIEW_OPS, source

aten = torch.ops.aten
QUANTIZE = torch.ops.quantized_decomposed.quantize_per_tensor.default
DEQUANTIZE = torch.ops.quantized_decomposed.dequantize_per_tensor.default
DEQUANTIZE_WEIGHT = torch.ops.quantized_decomposed.dequantize_per_channel.default
ANCHORS = (aten.conv2d.default, aten.linear.default)


def nodes(program, target) -> list[Node]:
    return [node for node in program.exported.graph.nodes if node.target is target]


def quantized_tensors(program) -> list[str]:
    """Key of the float tensor before each quantize, in program order."""
    keys = tensor_keys(program.exported.graph_module)
    return [keys[node.args[0]] for node in nodes(program, QUANTIZE)]


def by_key(program) -> dict[str, Node]:
    return {key: node for node, key in tensor_keys(program.exported.graph_module).items()}


def quantize_after(node: Node) -> Node:
    (quantize,) = [user for user in node.users if user.target is QUANTIZE]
    return quantize


def program_of(module: nn.Module, side: int = 16):
    torch.manual_seed(0)
    preprocessing = Preprocessing(resize_size=side, crop_size=side)
    return quantize_model(module.eval(), open_images("synthetic:2"), preprocessing, quiet=True)


def test_int8_tensors_of_every_structure_in_order(small_program) -> None:
    found = [key for key in quantized_tensors(small_program) if not key.startswith("input")]
    assert found == [
        "stem:conv2d",
        "conv_block.dw:conv2d",
        "conv_block.mlp.norm:layer_norm",
        "conv_block.mlp.fc1:linear",
        "conv_block.mlp:gelu",
        "conv_block:add",
        "split_block:getitem#2",
        "split_block.convs.0:conv2d",
        "split_block:add",
        "split_block.convs.1:conv2d",
        "split_block:cat",
        "split_block:add#1",
        "split_block.norm:layer_norm",
        "split_block.attention.qkv:linear",
        "split_block.attention:matmul#1",
        "split_block:add#2",
        "split_block:add#3",
        ":mean",
        "norm:layer_norm",
    ]


def test_each_int8_tensor_has_one_quantize_and_one_dequantize(small_program) -> None:
    for quantize in nodes(small_program, QUANTIZE):
        assert [user.target for user in quantize.users] == [DEQUANTIZE]
        (dequantize,) = quantize.users
        assert dequantize.args[1:] == quantize.args[1:]
    assert max(Counter(node.args[0] for node in nodes(small_program, DEQUANTIZE)).values()) == 1


def test_linear_into_residual_add_is_not_quantized_between(small_program) -> None:
    linear = by_key(small_program)["conv_block.mlp.fc2:linear"]
    (permute,) = linear.users
    (add,) = permute.users
    assert permute.target is aten.permute.default
    assert add.target is aten.add.Tensor


def test_concatenation_and_its_pieces_share_one_scale(small_program) -> None:
    graph = by_key(small_program)
    pieces = ["split_block.convs.0:conv2d", "split_block.convs.1:conv2d", "split_block:getitem#2", "split_block:cat"]
    assert len({quantize_after(graph[key]).args[1:] for key in pieces}) == 1
    assert all(piece.target is DEQUANTIZE for piece in graph["split_block:cat"].args[0])


def test_untouched_slices_are_read_without_requantization(small_program) -> None:
    graph = by_key(small_program)
    first_chunk = graph["split_block.convs.0:conv2d"].args[0]
    assert source(first_chunk, SLICE_OPS).target is DEQUANTIZE
    assert not any(user.target is QUANTIZE for user in first_chunk.users)


def test_position_encoding_is_an_int8_constant(small_program) -> None:
    constant = by_key(small_program)["split_block:add#1"].args[1]
    assert constant.target is DEQUANTIZE
    assert constant.args[0].op == "placeholder"
    assert constant.args[0].meta["val"].dtype == torch.int8
    assert list(constant.args[0].meta["val"].shape) == [1, 64, 12]


def test_weights_are_int8_constants_per_output_channel(small_program) -> None:
    anchors = [node for node in small_program.exported.graph.nodes if node.target in ANCHORS]
    assert len(anchors) == 9
    for anchor in anchors:
        weight = anchor.args[1]
        assert weight.target is DEQUANTIZE_WEIGHT
        assert weight.args[0].meta["val"].dtype == torch.int8
        assert weight.args[3:6] == (0, -127, 127)
    state = small_program.exported.state_dict
    int8_weights = [tensor for tensor in state.values() if tensor.dtype == torch.int8 and tensor.ndim in (2, 4)]
    assert all(int(tensor.min()) >= -127 for tensor in int8_weights)
    assert len(int8_weights) == 9


def test_float_weights_do_not_stay_in_the_program(small_program) -> None:
    floats = [tensor for tensor in small_program.exported.state_dict.values() if tensor.dtype == torch.float32]
    assert all(tensor.ndim < 2 or tensor.numel() == 2 for tensor in floats)  # 2: the attention's temperatures


def test_logits_stay_float(small_program) -> None:
    (output,) = [node for node in small_program.exported.graph.nodes if node.op == "output"]
    assert output.all_input_nodes[0].target is aten.linear.default


def int16_program(model: nn.Module, preprocessing: Preprocessing, *keys: str):
    return quantize_model(model, open_images("synthetic:6"), preprocessing, quiet=True, int16=frozenset(keys))


def test_named_tensors_become_int16(small_model, small_preprocessing, small_program) -> None:
    program = int16_program(small_model, small_preprocessing, "conv_block:add", "split_block:add#1")
    graph = by_key(program)
    for key in ("conv_block:add", "split_block:add#1"):
        narrow, wide = small_program.recipe.activations[key], program.recipe.activations[key]
        assert (narrow.dtype, wide.dtype) == ("int8", "int16")
        quantize = quantize_after(graph[key])
        assert quantize.args[1:] == (wide.scale, wide.zero_point, *LEVELS["int16"], torch.int16)
        assert quantize.meta["val"].dtype == torch.int16
    others = [key for key, params in program.recipe.activations.items() if params.dtype == "int8"]
    assert len(others) == len(small_program.recipe.activations) - 2


def test_a_program_of_int16_tensors_is_closer_to_float(small_model, small_preprocessing, small_program) -> None:
    program = int16_program(small_model, small_preprocessing, *small_program.recipe.activations)
    images = open_images("synthetic:8")
    narrow, wide = (compare(p, small_model, images, quiet=True) for p in (small_program, program))
    assert wide.signal_to_noise_db > narrow.signal_to_noise_db + 6


def test_an_int16_tensor_covers_all_that_was_seen_in_finer_steps(small_model, small_preprocessing) -> None:
    settings = ObserverSettings(method="minmax")
    narrow, wide = (
        quantize_model(
            small_model, open_images("synthetic:2"), small_preprocessing, settings, quiet=True, int16=frozenset(keys)
        ).recipe.activations["stem:conv2d"]
        for keys in ((), ("stem:conv2d",))
    )
    assert narrow.scale <= wide.scale * INT16_STEPS <= 1.2 * narrow.scale
    assert wide.zero_point == pytest.approx(narrow.zero_point * INT16_STEPS, abs=INT16_STEPS)


def test_recipe_rebuilds_int16_tensors(small_model, small_preprocessing, small_input) -> None:
    program = int16_program(small_model, small_preprocessing, "conv_block:add")
    again = quantize_with_recipe(small_model, program.recipe)
    assert str(again.exported.graph) == str(program.exported.graph)
    assert torch.equal(again(small_input), program(small_input))


def test_int16_of_a_tensor_that_is_not_quantized(small_model, small_preprocessing) -> None:
    with pytest.raises(UserError, match=r"tensor 'conv_block\.mlp\.fc2:linear' cannot be int16: .*of its recipe"):
        int16_program(small_model, small_preprocessing, "conv_block.mlp.fc2:linear")


def test_tensors_of_one_scale_are_of_one_width(small_model, small_preprocessing) -> None:
    with pytest.raises(UserError, match=r"share one scale, so they are of one width; make '.*' int16 too"):
        int16_program(small_model, small_preprocessing, "split_block:cat")
    pieces = ["split_block.convs.0:conv2d", "split_block.convs.1:conv2d", "split_block:cat.in2", "split_block:cat"]
    program = int16_program(small_model, small_preprocessing, *pieces)
    assert {program.recipe.activations[key].dtype for key in pieces} == {"int16"}


class TwoBranches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.last = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x):
        return self.last(self.left(x) + self.right(x)).mean((1, 2))


def test_only_one_of_two_added_linears_stays_float() -> None:
    found = quantized_tensors(program_of(TwoBranches()))
    assert ("left:linear" in found) + ("right:linear" in found) == 1


class ReusedLinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.last = nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x):
        y = self.body(x)
        return self.last((x + y) * y).mean((1, 2))


def test_linear_read_twice_is_quantized() -> None:
    assert "body:linear" in quantized_tensors(program_of(ReusedLinear()))


class Island(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 4, 1), nn.Linear(16, 4)

    def forward(self, x):
        return self.last(torch.sin(self.conv(x)) * 2.0 + 1.0).mean((1, 2))


def test_operators_without_a_rule_form_an_island_that_ends_before_the_next_linear() -> None:
    found = quantized_tensors(program_of(Island()))
    assert found[1:] == ["conv:conv2d", ":add", "last:linear"]


class Activations(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, 3, 1) for _ in range(3))

    def forward(self, x):
        y = F.gelu(self.convs[2](F.hardswish(self.convs[1](F.relu(self.convs[0](x))))))
        return y.mean((2, 3))


def test_activations_and_their_inputs_are_int8() -> None:
    found = quantized_tensors(program_of(Activations()))
    assert found[1:] == [
        "convs.0:conv2d",
        ":relu",
        "convs.1:conv2d",
        ":hardswish",
        "convs.2:conv2d",
        ":gelu",
    ]


class SlicesOnly(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 1), nn.Linear(4, 4)

    def forward(self, x):
        a, b = self.conv(x).chunk(2, dim=1)
        return self.fc(torch.cat([b, a], dim=1).mean((2, 3)))


def test_concatenation_of_slices_alone_gets_a_scale_of_its_own() -> None:
    program = program_of(SlicesOnly())
    graph = by_key(program)
    scales = {piece.args[1:] for piece in graph[":cat"].args[0]}
    assert len(scales) == 1
    assert scales == {quantize_after(graph[":cat"]).args[1:]}


def assert_every_travelling_tensor_is_int8(program) -> None:
    """Convolutions and Linears read int8 only; LayerNorm, activations, pooling and concatenation likewise."""
    integer_ops = [*ANCHORS, aten.layer_norm.default, aten.gelu.default, aten.hardswish.default, aten.mean.dim]
    for node in program.exported.graph.nodes:
        if node.target in integer_ops:
            assert source(node.args[0], VIEW_OPS | SLICE_OPS).target is DEQUANTIZE, node
        if node.target is aten.add.Tensor:
            for arg in node.args:
                assert source(arg, VIEW_OPS | SLICE_OPS).target in (DEQUANTIZE, aten.linear.default), node


@pytest.mark.parametrize(
    ("name", "convolutions", "linears"),
    [("edgenext_xx_small", 19, 31), ("edgenext_x_small_bn_hs", 25, 43)],
)
def test_edgenext_is_int8_from_input_to_logits(name: str, convolutions: int, linears: int) -> None:
    model = init_random(build_model(name, 10, 64), seed=0)
    program = quantize_model(model, open_images("synthetic:2"), Preprocessing(resize_size=64, crop_size=64), quiet=True)
    assert_every_travelling_tensor_is_int8(program)
    assert len(nodes(program, aten.conv2d.default)) == convolutions
    assert len(nodes(program, aten.linear.default)) == linears
    assert len(nodes(program, aten.batch_norm.default)) == 0
    assert len(nodes(program, aten.softmax.int)) == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["edgenext_small", "edgenext_small_bn_hs", "edgenext_base"])
def test_large_variants_are_int8_from_input_to_logits(name: str) -> None:
    model = init_random(build_model(name, 1000, 256), seed=0)
    program = quantize_model(
        model, open_images("synthetic:1"), Preprocessing(resize_size=292, crop_size=256), quiet=True
    )
    assert_every_travelling_tensor_is_int8(program)
