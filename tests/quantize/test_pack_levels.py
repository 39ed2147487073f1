"""Rounding decisions as text: the same integers come back, and a damaged text is refused."""

from __future__ import annotations

import base64
import zlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgenext_tvm.errors import UserError
from edgenext_tvm.quantize.pack_levels import pack_levels, unpack_levels


@given(st.lists(st.integers(-128, 127), max_size=60))
def test_integers_survive(values: list[int]) -> None:
    packed = pack_levels(torch.tensor(values, dtype=torch.int16))
    assert unpack_levels(packed, (len(values),), "rounding.fc").tolist() == values


def test_shape_is_that_of_the_weights() -> None:
    differences = torch.arange(-3, 3, dtype=torch.int16).reshape(2, 3)
    found = unpack_levels(pack_levels(differences), (2, 3), "rounding.fc")
    assert found.dtype == torch.int16
    assert torch.equal(found, differences)


def test_rounded_weights_take_less_than_three_bits_each() -> None:
    generator = torch.Generator().manual_seed(0)
    differences = torch.randint(-1, 2, (100, 100), generator=generator)
    assert len(pack_levels(differences)) * 8 < 3 * differences.numel()


@pytest.mark.parametrize("text", ["%%%", base64.b64encode(b"no zlib").decode()])
def test_damaged_text(text: str) -> None:
    with pytest.raises(UserError, match=r"recipe field 'rounding\.fc' is damaged .*make the recipe again"):
        unpack_levels(text, (4,), "rounding.fc")


@pytest.mark.parametrize("count", [3, 5, 10_000_000])
def test_wrong_number_of_values(count: int) -> None:
    text = base64.b64encode(zlib.compress(bytes(count))).decode()
    with pytest.raises(UserError, match=r"'rounding\.fc' does not hold 4 values, one per weight"):
        unpack_levels(text, (4,), "rounding.fc")
