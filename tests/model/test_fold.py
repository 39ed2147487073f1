"""Folding changes rounding only, and leaves nothing that quantization would have to multiply by."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgenext_tvm.model.config import VARIANTS
from edgenext_tvm.model.edgenext import EdgeNeXt, build_model
from edgenext_tvm.model.fold import fold_for_quantization
from edgenext_tvm.model.init_random import init_random
from edgenext_tvm.model.layers import BatchNormLast, FourierPositionEncoding

INPUT_SIZE = 64
BN_VARIANTS = [name for name in VARIANTS if name.endswith("bn_hs")]


def _random_model(name: str, input_size: int = INPUT_SIZE) -> EdgeNeXt:
    return init_random(build_model(name, num_classes=10, input_size=input_size), seed=7)


def _image(input_size: int = INPUT_SIZE) -> torch.Tensor:
    return torch.randn(2, 3, input_size, input_size, generator=torch.Generator().manual_seed(1))


def _relative_error(model: nn.Module, folded: nn.Module, x: torch.Tensor) -> float:
    with torch.no_grad():
        expected, actual = model(x), folded(x)
    return float((expected - actual).abs().max() / expected.abs().max())


@pytest.mark.parametrize("name", VARIANTS)
def test_outputs_stay_within_rounding_of_the_unfolded_model(name: str) -> None:
    model = _random_model(name)
    assert _relative_error(model, fold_for_quantization(model), _image()) < 1e-5


def test_outputs_stay_at_another_input_size() -> None:
    model = _random_model("edgenext_x_small", input_size=96)
    assert _relative_error(model, fold_for_quantization(model), _image(96)) < 1e-5


@pytest.mark.parametrize("name", VARIANTS)
def test_no_scale_is_left_but_the_stem_layer_norm(name: str) -> None:
    folded = fold_for_quantization(_random_model(name))
    modules = dict(folded.named_modules())
    assert not any(isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d)) for m in modules.values())
    assert not any(isinstance(m, FourierPositionEncoding) for m in modules.values())
    affine = [k for k, m in modules.items() if isinstance(m, nn.LayerNorm) and m.weight is not None]
    assert affine == ([] if name in BN_VARIANTS else ["stem.1"])
    assert not [k for k, _ in folded.named_parameters() if "gamma" in k]
    assert all(m.bias is not None for m in modules.values() if isinstance(m, (nn.Conv2d, nn.Linear)))


@pytest.mark.parametrize("name", VARIANTS)
def test_exported_graph_multiplies_only_by_the_attention_temperature(name: str) -> None:
    model = _random_model(name)
    program = torch.export.export(fold_for_quantization(model), (_image()[:1],))
    calls = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert calls.count("aten.mul.Tensor") == sum(model.config.sdta_blocks)
    forbidden = ("batch_norm", "sin", "cos", "arange", "floor_divide", "cumsum")
    assert not [call for call in calls if any(word in call for word in forbidden)]
    assert torch.equal(program.module()(_image()[:1]), fold_for_quantization(model)(_image()[:1]))


@pytest.mark.parametrize("name", BN_VARIANTS)
def test_a_stream_scale_too_small_to_divide_by_stays_as_a_1x1_depthwise_convolution(name: str) -> None:
    model = _random_model(name)
    with torch.no_grad():
        for module in model.modules():
            norm = getattr(module, "norm_xca", None)
            if isinstance(norm, BatchNormLast):
                norm.weight[0] = 0.0
                norm.weight[1] = -1e-7
    folded = fold_for_quantization(model)
    kept = [m for k, m in folded.named_modules() if k.endswith("stream_scale")]
    assert len(kept) == 3 and all(isinstance(m, nn.Conv2d) and m.groups == m.in_channels for m in kept)
    assert _relative_error(model, folded, _image()) < 1e-5


@pytest.mark.parametrize("name", ["edgenext_xx_small", "edgenext_xx_small_bn_hs"])
def test_the_given_model_is_untouched_and_folding_twice_is_folding_once(name: str) -> None:
    model = _random_model(name)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    once = fold_for_quantization(model)
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    twice = fold_for_quantization(once)
    assert torch.equal(once(_image()), twice(_image()))


def test_module_paths_of_all_anchors_stay() -> None:
    model = _random_model("edgenext_xx_small_bn_hs")

    def anchors(m: nn.Module) -> list[str]:
        kinds = (nn.Conv2d, nn.Linear)
        return [k for k, a in m.named_modules() if isinstance(a, kinds) and "token_projection" not in k]

    assert anchors(fold_for_quantization(model)) == anchors(model)
