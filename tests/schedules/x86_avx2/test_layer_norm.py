from __future__ import annotations

import pytest

from edgenext_tvm.kernels import LayerNorm


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize(("t", "c"), [(1, 168), (3, 1), (49, 17), (16, 64), (64, 88), (32, 24), (5, 700)])
def test_layer_norm_gives_the_twins_bits(check_avx2, t: int, c: int, affine: bool) -> None:
    check_avx2(LayerNorm(t, c, affine))
