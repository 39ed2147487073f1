"""One tensor quantized at a time: what is switched, what is not, and what the scan says of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from edgenext_tvm.errors import UserError
from edgenext_tvm.quantize import Preprocessing, QuantizedProgram, open_images, quantize_model
from edgenext_tvm.quantize.observers import INT16_STEPS
from edgenext_tvm.quantize.sensitivity import SwitchedNetwork, scan_sensitivity


@pytest.fixture(scope="module")
def inputs() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(5).normal(size=(5, 3, 32, 32)).astype(np.float32))


@pytest.fixture(scope="module")
def network(small_model: nn.Module, small_program: QuantizedProgram) -> SwitchedNetwork:
    return SwitchedNetwork(small_model, small_program.recipe, batch_size=2)


def test_groups_are_the_recipes_tensors_and_every_layers_weights_once(
    network: SwitchedNetwork, small_model: nn.Module, small_program: QuantizedProgram
) -> None:
    layers = [n for n, m in small_model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    keys = [key for group in network.groups for key in group]
    assert sorted(keys) == sorted([*small_program.recipe.activations, *(f"{name}.weight" for name in layers)])
    assert network.groups[0] == ("input",)
    assert keys.index("stem.weight") < keys.index("fc.weight")


def test_with_all_switches_off_it_is_the_float_model(
    network: SwitchedNetwork, small_model: nn.Module, inputs: torch.Tensor
) -> None:
    with torch.no_grad():
        torch.testing.assert_close(network.logits(inputs, {}), small_model(inputs))


def test_with_all_switches_on_it_is_the_quantized_program(
    network: SwitchedNetwork, small_program: QuantizedProgram, inputs: torch.Tensor
) -> None:
    quantized = torch.cat([small_program(x[None]) for x in inputs])
    keys = [key for group in network.groups for key in group]
    torch.testing.assert_close(network.logits(inputs, dict.fromkeys(keys, "int8")), quantized)


def test_the_scan_measures_what_switching_each_group_alone_does(network: SwitchedNetwork, inputs: torch.Tensor) -> None:
    exact = network.logits(inputs, {})
    for found in network.scan(inputs, network.groups):
        changed = network.logits(inputs, dict.fromkeys(found.group, "int8"))
        noise = float((changed - exact).double().square().sum())
        assert found.mean_squared_error == pytest.approx(noise / exact.numel(), rel=1e-6)
        assert found.sqnr_db == pytest.approx(10 * math.log10(float(exact.double().square().sum()) / noise), abs=1e-4)
        assert found.agreement == float((changed.argmax(1) == exact.argmax(1)).float().mean())


def test_a_group_of_several_keys_switches_them_together(network: SwitchedNetwork, inputs: torch.Tensor) -> None:
    group = ("stem.weight", "split_block.convs.0.weight", ":mean")
    (found,) = network.scan(inputs, [group])
    changed = network.logits(inputs, dict.fromkeys(group, "int8"))
    error = (changed - network.logits(inputs, {})).double().square().mean()
    assert found.group == group
    assert found.mean_squared_error == pytest.approx(float(error), rel=1e-6)


def test_finer_steps_do_less_harm(
    small_model: nn.Module, small_program: QuantizedProgram, inputs: torch.Tensor
) -> None:
    groups = [(":mean",)]
    narrow, wide = (
        scan_sensitivity(small_model, small_program.recipe, inputs, groups, dtype=dtype)[0]
        for dtype in ("int8", "int16")
    )
    assert wide.mean_squared_error < narrow.mean_squared_error / 64


def test_a_tensor_that_the_recipe_makes_int16_is_scanned_as_int8_of_the_same_range(
    small_model: nn.Module, small_program: QuantizedProgram, inputs: torch.Tensor
) -> None:
    recipe = small_program.recipe
    network = SwitchedNetwork(small_model, recipe)
    narrow = network.scan(inputs, [("stem:conv2d",)])[0]
    wide = recipe.activations["stem:conv2d"]
    activations = dict(recipe.activations)
    steps = INT16_STEPS
    activations["stem:conv2d"] = wide.model_copy(
        update={"scale": wide.scale / steps, "zero_point": wide.zero_point * steps, "dtype": "int16"}
    )
    widened = recipe.model_copy(update={"activations": activations})
    again = scan_sensitivity(small_model, widened, inputs, [("stem:conv2d",)])[0]
    assert again.mean_squared_error == pytest.approx(narrow.mean_squared_error, rel=1e-3)


class _InPlace(nn.Module):
    """x is written after it was made: a run may not leave the float run in between and let it go on."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.side = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.stem(x)
        z = self.side(x)
        y += z
        return self.fc(torch.relu_(y).mean((2, 3)))


def test_operators_that_write_in_place_do_not_disturb_the_float_run() -> None:
    torch.manual_seed(1)
    model = _InPlace().eval()
    program = quantize_model(model, open_images("synthetic:2"), Preprocessing(resize_size=16, crop_size=16), quiet=True)
    network = SwitchedNetwork(model, program.recipe, batch_size=2)
    inputs = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(network.logits(inputs, {}), model(inputs))
    exact = network.logits(inputs, {})
    for found in network.scan(inputs, network.groups):
        changed = network.logits(inputs, dict.fromkeys(found.group, "int8"))
        assert found.mean_squared_error == pytest.approx(float((changed - exact).double().square().mean()), rel=1e-5)


def test_an_unknown_tensor_is_refused_by_name(network: SwitchedNetwork, inputs: torch.Tensor) -> None:
    with pytest.raises(UserError, match=r"quantizes no tensor 'stem:conv3d'; allowed are .*stem\.weight"):
        network.scan(inputs, [("stem:conv3d",)])
    with pytest.raises(UserError, match="quantizes no tensor 'nothing'"):
        network.logits(inputs, {"nothing": "int8"})


def test_a_recipe_of_another_network_is_refused(small_model: nn.Module, small_program: QuantizedProgram) -> None:
    activations = {k: v for k, v in small_program.recipe.activations.items() if k != ":mean"}
    recipe = small_program.recipe.model_copy(update={"activations": activations})
    with pytest.raises(UserError, match="it lacks ':mean'; calibrate again"):
        SwitchedNetwork(small_model, recipe)
