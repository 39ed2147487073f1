"""A float graph with simulated int8: the program's own numbers, and gradients for every weight."""

from __future__ import annotations

import pytest
import torch

from edgenext_tvm.finetune.fake_quantize_graph import OBSERVER, FakeQuantizedGraph, FakeQuantizedWeight
from edgenext_tvm.model.checkpoint import bundled_checkpoint, load_model
from edgenext_tvm.model.fold import fold_for_quantization
from edgenext_tvm.quantize import Preprocessing, open_images, quantize_model
from edgenext_tvm.quantize.calibrate import image_batches
from edgenext_tvm.quantize.shape_weights import Steps

MODEL = load_model(bundled_checkpoint("edgenext_xx_small"), input_size=64)
PREPROCESSING = Preprocessing(resize_size=64, crop_size=64)
PLAIN = Steps(equalize=False, rounding_budget_min=0, bias_correction=False)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.cat(list(image_batches(open_images("synthetic:2"), PREPROCESSING)))


@pytest.fixture(scope="module")
def graph(images: torch.Tensor) -> FakeQuantizedGraph:
    graph = FakeQuantizedGraph(fold_for_quantization(MODEL), 2, 64)
    graph.measure_ranges([images])
    return graph


@pytest.mark.slow
def test_it_computes_what_the_int8_program_computes(graph: FakeQuantizedGraph, images: torch.Tensor) -> None:
    program = quantize_model(MODEL, open_images("synthetic:2"), PREPROCESSING, OBSERVER, quiet=True, steps=PLAIN)
    for tensor in graph.tensors:
        params = program.recipe.activations[tensor.observer.keys[0]]
        assert float(tensor.scale) == pytest.approx(params.scale, rel=0.1)
        tensor.observer.freeze(params.scale, params.zero_point)
        tensor.choose()
    with torch.no_grad():
        simulated, wanted = graph(images), MODEL(images)
    real = torch.cat([program(image[None]) for image in images])
    assert (simulated - real).norm() < 0.3 * (real - wanted).norm()
    assert 0 < (real - wanted).norm() < 0.2 * wanted.norm()


def test_every_float_weight_of_the_model_trains(graph: FakeQuantizedGraph, images: torch.Tensor) -> None:
    graph.train()
    graph(images).square().sum().backward()
    folded = dict(fold_for_quantization(MODEL).named_parameters())
    trained = {name: p for name, p in graph.graph.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert trained.keys() == folded.keys()
    weights = graph.weights(graph.state_dict())
    assert weights.keys() == folded.keys()
    assert torch.equal(weights["stem.0.weight"], folded["stem.0.weight"])


def test_a_smaller_batch_gives_the_same_answers(graph: FakeQuantizedGraph, images: torch.Tensor) -> None:
    with torch.no_grad():
        assert torch.allclose(graph(images[:1]), graph(images)[:1], atol=1e-5)


def test_ranges_are_state(graph: FakeQuantizedGraph, images: torch.Tensor) -> None:
    other = FakeQuantizedGraph(fold_for_quantization(MODEL), 2, 64)
    state = graph.state_dict()
    assert not any(value.is_floating_point() for name, value in state.items() if name.endswith("extra_state"))
    other.load_state_dict(state)
    with torch.no_grad():
        assert torch.equal(other(images), graph(images))


def test_weights_round_to_127_levels_of_each_channel() -> None:
    weight = torch.tensor([[127.0, 0.6, -3.4], [0.0, 0.0, 0.0], [-1.27, 0.014, 0.016]], requires_grad=True)
    rounded = FakeQuantizedWeight()(weight)
    assert torch.allclose(rounded, torch.tensor([[127.0, 1.0, -3.0], [0.0, 0.0, 0.0], [-1.27, 0.01, 0.02]]))
    rounded.sum().backward()
    assert weight.grad is not None and (weight.grad == 1).all()
