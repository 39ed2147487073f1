"""Equalization: float outputs stay, channels of one int8 tensor come to like ranges."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from edgenext_tvm.errors import UserError
from edgenext_tvm.model.edgenext import EdgeNeXt, build_model
from edgenext_tvm.model.fold import fold_for_quantization
from edgenext_tvm.model.init_random import init_random
from edgenext_tvm.quantize.equalize import (
    AttentionExponents,
    Equalization,
    apply_equalization,
    choose_attention_exponents,
    choose_norm_exponents,
    norm_readers,
)

ATTENTION = "stages.1.blocks.1.xca"
NORM = "stages.1.blocks.0.norm"


def folded(name: str = "edgenext_xx_small") -> EdgeNeXt:
    return fold_for_quantization(init_random(build_model(name, 10, 64), seed=0))


@pytest.fixture(scope="module")
def model() -> EdgeNeXt:
    return folded()


@pytest.fixture(scope="module")
def batches() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, 3, 64, 64, generator=generator) for _ in range(3)]


def equalized(model: EdgeNeXt, equalization: Equalization) -> EdgeNeXt:
    changed = copy.deepcopy(model)
    apply_equalization(changed, equalization)
    return changed


def disturbed(model: EdgeNeXt, first_head: int = 3) -> EdgeNeXt:
    """q and k of one attention in ranges from 2^-6 to 2^6, its first head of v 2^first_head times larger."""
    channels, heads = model.stages[1].blocks[1].xca.proj.in_features, model.stages[1].blocks[1].xca.heads
    spread = tuple(channel % 13 - 6 for channel in range(channels))
    exponents = AttentionExponents(q=spread, k=spread[::-1], v=(first_head, *[0] * (heads - 1)))
    return equalized(model, Equalization(attention={ATTENTION: exponents}))


def peaks(model: EdgeNeXt, batches: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Largest value of each q and k channel, and of each v head."""
    attention, seen = model.get_submodule(ATTENTION), []
    handle = attention.qkv.register_forward_hook(lambda _m, _i, output: seen.append(output.abs().amax((0, 1))))
    with torch.no_grad():
        for batch in batches:
            model(batch)
    handle.remove()
    q, k, v = torch.stack(seen).amax(0).reshape(3, -1)
    return torch.cat([q, k]), v.reshape(attention.heads, -1).amax(1)


@torch.no_grad()
def test_float_outputs_stay(model, batches) -> None:
    other = disturbed(model)
    attention, norms = choose_attention_exponents(other, batches), choose_norm_exponents(other, batches)
    chosen = Equalization(attention=attention, norms=norms)
    for changed in (other, equalized(other, chosen)):
        for batch in batches:
            torch.testing.assert_close(changed(batch), model(batch), rtol=1e-5, atol=1e-5)


def test_channels_of_q_and_k_and_heads_of_v_come_within_half_a_power_of_two(model, batches) -> None:
    other = disturbed(model)
    before, _ = peaks(other, batches)
    assert before.max() / before.min() > 1000
    exponents = choose_attention_exponents(other, batches)
    qk, v = peaks(equalized(other, Equalization(attention=exponents)), batches)
    target = peaks(other, batches)[1].max()
    ratio = torch.cat([qk, v]) / target
    assert float(ratio.max()) <= 2**0.5001
    assert float(ratio.min()) >= 2**-0.5001


def test_exponents_undo_a_disturbance_exactly(model, batches) -> None:
    settled = equalized(model, Equalization(attention=choose_attention_exponents(model, batches)))
    other = disturbed(settled, first_head=0)
    restored = equalized(other, Equalization(attention=choose_attention_exponents(other, batches)))
    assert not torch.equal(other.get_submodule(ATTENTION).qkv.weight, settled.get_submodule(ATTENTION).qkv.weight)
    for name, value in settled.state_dict().items():
        assert torch.equal(restored.state_dict()[name], value), name


def test_a_channel_that_is_always_zero_keeps_its_weights(batches) -> None:
    model = folded()
    qkv = model.get_submodule(ATTENTION).qkv
    with torch.no_grad():
        qkv.weight[5] = 0.0
        qkv.bias[5] = 0.0
    assert choose_attention_exponents(model, batches)[ATTENTION].q[5] == 0


def test_norms_are_equalized_only_where_their_layer_gains(model, batches) -> None:
    other = copy.deepcopy(model)
    reader = norm_readers(other)[NORM]
    with torch.no_grad():
        reader.weight[:, 3] *= 1000.0  # one column takes the whole range of each row
    chosen = choose_norm_exponents(other, batches)
    assert chosen[NORM][3] == max(chosen[NORM])
    assert set(chosen) < set(norm_readers(other))
    changed = equalized(other, Equalization(norms=chosen))
    assert changed.get_submodule(NORM).weight.tolist() == [2.0**e for e in chosen[NORM]]
    assert other.get_submodule(NORM).weight is None


def test_norm_readers_leave_the_residual_stream_alone(model) -> None:
    found = norm_readers(model)
    assert "stem.1" not in found
    assert found["stages.2.downsample.0"] is model.stages[2].downsample[1]
    assert found["head.norm"] is model.head.fc
    assert len(found) == sum(model.config.depths) + 3 + 3 + 1  # blocks, attentions, downsamplings, head


def test_batch_norm_variants_have_attentions_and_no_norms(batches) -> None:
    model = folded("edgenext_xx_small_bn_hs")
    assert norm_readers(model) == {}
    chosen = choose_attention_exponents(model, batches)
    assert len(chosen) == 3
    with torch.no_grad():
        changed = equalized(model, Equalization(attention=chosen))(batches[0])
        torch.testing.assert_close(changed, model(batches[0]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("equalization", "message"),
    [
        ({"attention": {"neck.xca": {"q": [], "k": [], "v": []}}}, r"the model has no attention 'neck\.xca'"),
        ({"attention": {ATTENTION: {"q": [0], "k": [0], "v": [0]}}}, r"has 1, 1 and 1 exponents for q, k and v"),
        ({"norms": {"stem.1": [0] * 24}}, r"norms\.stem\.1' has 24 exponents, and the model no such LayerNorm"),
        ({"norms": {NORM: [1, 2]}}, r"has 2 exponents, and the model 48; calibrate again"),
    ],
)
def test_exponents_of_another_model_are_refused(model, equalization: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        equalized(model, Equalization.model_validate(equalization))
