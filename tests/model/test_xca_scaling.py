"""XCA's attention products double when the tokens double; those of self-attention quadruple."""

from __future__ import annotations

import importlib.util
import json
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "xca_scaling.py"


@pytest.fixture(scope="module")
def xca_scaling():
    spec = importlib.util.spec_from_file_location("xca_scaling", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_doubling_the_tokens_doubles_xca_and_quadruples_self_attention(xca_scaling) -> None:
    rows = xca_scaling.measure(160, 8, xca_scaling.TOKENS, runs=0)
    for small, large in pairwise(rows):
        assert large.tokens == 2 * small.tokens
        assert large.xca_products_madds == 2 * small.xca_products_madds
        assert large.xca_madds == 2 * small.xca_madds
        assert large.self_attention_products_madds == 4 * small.self_attention_products_madds
        assert large.self_attention_madds > 2 * small.self_attention_madds


@pytest.mark.parametrize(("tokens", "channels", "heads"), [(64, 48, 4), (1024, 160, 8)])
def test_counts_follow_the_formulas(xca_scaling, tokens: int, channels: int, heads: int) -> None:
    (row,) = xca_scaling.measure(channels, heads, (tokens,), runs=0)
    linear = 4 * tokens * channels * channels
    assert row.xca_products_madds == 2 * tokens * channels * channels // heads
    assert row.xca_madds == linear + row.xca_products_madds
    assert row.self_attention_products_madds == 2 * tokens * tokens * channels
    assert row.self_attention_madds == linear + row.self_attention_products_madds


def test_the_self_attention_compared_with_is_the_real_one(xca_scaling) -> None:
    channels, heads, tokens = 48, 4, 20
    generator = torch.Generator().manual_seed(0)
    layer = xca_scaling.SpatialSelfAttention(channels, heads).eval()
    reference = torch.nn.MultiheadAttention(channels, heads, batch_first=True).eval()
    with torch.no_grad():
        reference.in_proj_weight.copy_(layer.qkv.weight)
        reference.in_proj_bias.copy_(layer.qkv.bias)
        reference.out_proj.weight.copy_(layer.proj.weight)
        reference.out_proj.bias.copy_(layer.proj.bias)
        x = torch.randn(2, tokens, channels, generator=generator)
        expected, _ = reference(x, x, x)
        torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)


def test_table_and_json_hold_one_row_per_number_of_tokens(xca_scaling, capsys) -> None:
    assert xca_scaling.main(["--json", "--runs", "0", "--channels", "48", "--heads", "4"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert [row["tokens"] for row in data["rows"]] == list(xca_scaling.TOKENS)
    assert (data["channels"], data["heads"]) == (48, 4)
    assert xca_scaling.main(["--runs", "0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 + len(xca_scaling.TOKENS)


def test_channels_that_do_not_divide_are_refused(xca_scaling, capsys) -> None:
    with pytest.raises(SystemExit):
        xca_scaling.main(["--channels", "50", "--heads", "8"])
    assert "50 channels do not divide into 8 heads; try 160 and 8" in capsys.readouterr().err
