"""ImportProgram: a torch program becomes one Relax function that remembers its modules, or a clear error."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import tvm
from torch import Tensor, nn
from tvm import relax

from edgenext_tvm.errors import UserError
from edgenext_tvm.frontend import import_program
from edgenext_tvm.passes.rewrite import bindings_of, layer_of, op_name, shape_of
from edgenext_tvm.quantize import Preprocessing, open_images, quantize_model


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(8, 16)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fc2(self.act(self.fc1(x)))


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, stride=4)
        self.blocks = nn.Sequential(Block(), Block())
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x).permute(0, 2, 3, 1)).mean((1, 2)))


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return Network().eval()


@pytest.fixture(scope="module")
def imported(network: nn.Module) -> tvm.IRModule:
    preprocessing = Preprocessing(resize_size=16, crop_size=16)
    return import_program(quantize_model(network, open_images("synthetic:2"), preprocessing, quiet=True).exported)


def exported(module: nn.Module, *shapes: tuple[int, ...], **options) -> torch.export.ExportedProgram:
    return torch.export.export(module.eval(), tuple(torch.zeros(shape) for shape in shapes), **options)


def layers(mod: tvm.IRModule, name: str) -> list[str]:
    return [layer_of(value) for _, value in bindings_of(mod) if op_name(value) == name]


def test_every_operator_names_its_module(imported: tvm.IRModule) -> None:
    linears = ["blocks.0.fc1", "blocks.0.fc2", "blocks.1.fc1", "blocks.1.fc2", "head"]
    assert layers(imported, "matmul") == linears
    assert layers(imported, "nn.conv2d") == ["stem"]
    assert layers(imported, "nn.gelu") == ["blocks.0.act", "blocks.1.act"]


def test_quantization_belongs_to_the_module_it_quantizes(imported: tvm.IRModule) -> None:
    quantized = layers(imported, "quantize")
    assert {"stem", "blocks.0.fc1", "blocks.0.act"} <= set(quantized)
    assert len(quantized) == sum(op_name(v) == "quantize" for _, v in bindings_of(imported))


def test_weights_are_int8_constants(imported: tvm.IRModule) -> None:
    dequantized = [v.args[0] for _, v in bindings_of(imported) if op_name(v) == "dequantize"]
    weights = [tensor for tensor in dequantized if isinstance(tensor, tvm.ir.GenericConst)]
    assert sorted(shape_of(w) for w in weights) == sorted([(8, 3, 4, 4)] + [(16, 8), (8, 16)] * 2 + [(5, 8)])
    assert {str(w.ty.dtype) for w in weights} == {"int8"}


def test_the_function_takes_the_image_alone(imported: tvm.IRModule) -> None:
    assert [gv.name_hint for gv in imported.functions] == ["main"]
    (image,) = imported["main"].params
    assert (shape_of(image), str(image.ty.dtype)) == ((1, 3, 16, 16), "float32")
    assert shape_of(imported["main"].body.body) == (1, 5)


def test_a_float_program_computes_what_torch_computes(network: nn.Module) -> None:
    mod = import_program(exported(network, (1, 3, 16, 16)))
    machine = relax.VirtualMachine(relax.build(mod, "llvm"), tvm.cpu())
    x = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = network(x).numpy()
    np.testing.assert_allclose(machine["main"](tvm.runtime.tensor(x.numpy())).numpy(), expected, atol=1e-5)


def quantized_relu(dtype: torch.dtype, low: int, high: int) -> torch.export.ExportedProgram:
    ops = torch.ops.quantized_decomposed

    class Relu(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            q = ops.quantize_per_tensor.default(x, 0.05, high // 2 + 3, low, high, dtype)
            return torch.relu(ops.dequantize_per_tensor.default(q, 0.05, high // 2 + 3, low, high, dtype))

    return exported(Relu(), (2, 6))


@pytest.mark.parametrize(
    "dtype, low, high", [(torch.int8, -128, 127), (torch.uint8, 0, 255), (torch.int16, -2048, 2047)]
)
def test_activations_may_be_signed_or_unsigned_or_wide(dtype: torch.dtype, low: int, high: int) -> None:
    mod = import_program(quantized_relu(dtype, low, high))
    (quantize,) = [value for _, value in bindings_of(mod) if op_name(value) == "quantize"]
    assert str(quantize.attrs.out_dtype) == str(dtype).removeprefix("torch.")
    assert int(quantize.args[2].value.numpy()) == high // 2 + 3


def test_an_int16_tensor_of_more_than_12_bits_is_refused() -> None:
    with pytest.raises(UserError, match=r"quantizes to int16 in \[-32768, 32767\]; values .* keep to \[-2048, 2047\]"):
        import_program(quantized_relu(torch.int16, -32768, 32767))


def test_a_dynamic_shape_is_refused(network: nn.Module) -> None:
    program = exported(network, (2, 3, 16, 16), dynamic_shapes=({0: torch.export.Dim("batch")},))
    with pytest.raises(UserError, match="dynamic shape.*only static shapes are compiled.*without dynamic_shapes"):
        import_program(program)


def test_several_inputs_are_refused() -> None:
    class Sum(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return a + b

    with pytest.raises(UserError, match="2 inputs and 1 outputs; exactly one image tensor"):
        import_program(exported(Sum(), (1, 4), (1, 4)))


def test_several_outputs_are_refused() -> None:
    class Halves(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x + 1, x * 2

    with pytest.raises(UserError, match="1 inputs and 2 outputs"):
        import_program(exported(Halves(), (1, 4)))


def test_asymmetric_weights_are_refused_by_name() -> None:
    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weight", torch.ones(3, 4, dtype=torch.int8))
            self.register_buffer("scales", torch.ones(3))
            self.register_buffer("zero_points", torch.tensor([0, 1, 0]))

        def forward(self, x: Tensor) -> Tensor:
            weight = torch.ops.quantized_decomposed.dequantize_per_channel.default(
                self.weight, self.scales, self.zero_points, 0, -127, 127, torch.int8
            )
            return torch.nn.functional.linear(x, weight)

    message = "'b_weight' has per-channel zero points other than 0; only symmetric.*per_channel_symmetric"
    with pytest.raises(UserError, match=message):
        import_program(exported(Linear(), (2, 4)))


def test_an_unsupported_operator_is_named_with_its_module() -> None:
    class Spectrum(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.fft.fft(x).real

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.spectrum = Spectrum()

        def forward(self, x: Tensor) -> Tensor:
            return self.spectrum(x)

    with pytest.raises(UserError, match=r"_fft_.*\(module 'spectrum'\).*Replace the operator in the PyTorch model"):
        import_program(exported(Outer(), (2, 8)))
