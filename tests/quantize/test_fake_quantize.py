"""A graph with observers runs as the int8 program it will become."""

from __future__ import annotations

import copy

import torch

from edgenext_tvm.quantize import ObserverSettings, quantize_with_recipe
from edgenext_tvm.quantize.convert import freeze_all
from edgenext_tvm.quantize.fake_quantize import fake_quantized
from edgenext_tvm.quantize.insert_qdq import insert_observers


@torch.no_grad()
def test_logits_are_those_of_the_converted_program_and_float_again_afterwards(
    small_model, small_program, small_input
) -> None:
    plain = small_program.recipe.model_copy(update={"rounding": {}, "bias_correction": {}})
    prepared, observers = insert_observers(copy.deepcopy(small_model), small_input, ObserverSettings())
    freeze_all(observers, plain)
    before = prepared(small_input)
    with fake_quantized(prepared):
        inside = prepared(small_input)
    torch.testing.assert_close(inside, quantize_with_recipe(small_model, plain)(small_input), rtol=1e-5, atol=1e-5)
    assert not torch.equal(inside, before)
    assert torch.equal(prepared(small_input), before)
