"""The two naming schemes map onto each other one to one."""

from __future__ import annotations

import pytest

from edgenext_tvm.model.checkpoint_names import to_official_names, to_timm_names
from edgenext_tvm.model.config import VARIANTS
from edgenext_tvm.model.edgenext import build_model


@pytest.mark.parametrize("name", ["edgenext_xx_small", "edgenext_small_bn_hs"])
def test_both_ways_give_the_same_names_back(name: str) -> None:
    timm = {key: key for key in build_model(name).state_dict()}
    official = to_official_names(timm)
    assert len(official) == len(timm)
    assert to_timm_names(official) == timm
    assert to_timm_names(timm) == timm


@pytest.mark.parametrize("name", VARIANTS)
def test_no_timm_word_is_left_in_official_names(name: str) -> None:
    for key in to_official_names(build_model(name).state_dict()):
        assert not any(word in key for word in ("stem", "blocks", "conv_dw", "mlp", "head.fc", "head.norm"))


@pytest.mark.parametrize(
    ("official", "timm"),
    [
        ("downsample_layers.0.0.weight", "stem.0.weight"),
        ("downsample_layers.2.1.bias", "stages.2.downsample.1.bias"),
        ("stages.2.4.dwconv.weight", "stages.2.blocks.4.conv_dw.weight"),
        ("stages.3.1.pwconv2.bias", "stages.3.blocks.1.mlp.fc2.bias"),
        ("stages.1.2.pos_embd.token_projection.weight", "stages.1.blocks.2.pos_embd.token_projection.weight"),
        ("stages.1.2.norm_xca.weight", "stages.1.blocks.2.norm_xca.weight"),
        ("norm.running_mean", "head.norm.running_mean"),
        ("norm.weight", "head.norm.weight"),
        ("head.weight", "head.fc.weight"),
        ("module.stages.0.0.gamma", "stages.0.blocks.0.gamma"),
    ],
)
def test_known_pairs(official: str, timm: str) -> None:
    assert to_timm_names({official: 0}) == {timm: 0}
    assert to_official_names({timm: 0}) == {official.removeprefix("module."): 0}
