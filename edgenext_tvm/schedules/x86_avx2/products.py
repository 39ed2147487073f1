"""Two ways of adding int8 products exactly: vpmaddwd on pairs of int16 (AVX2), vpdpbusd on groups of four (VNNI).

vpmaddubsw would add two products of bytes to a saturating int16, so its bits are not those of the definition.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tvm import tirx
from tvm.tirx import Expr

from ...intrinsics import x86_avx2 as avx2
from ...kernels.base import TensorType
from ...kernels.packing import BiasOfUnsigned, PackedDots, Packing, PaddedChannels, round_up
from ..x86.emit import load
from .epilogue import LANES


@dataclasses.dataclass(frozen=True)
class Products:
    """One way of adding products.

    group   inputs of one 32-bit word, whose products one step adds to each sum
    dtype   of the widened inputs
    sums    registers of sums that fit beside weights, a word and a product in 16
    cost    instructions to add a word's products to a register of sums
    """

    family: str
    group: int
    dtype: str
    sums: int
    cost: float

    def widened(self, inputs: Expr) -> Expr:
        """Return int8 inputs, a vector or a scalar, as the words want them."""
        if self.group == 2:
            return inputs.astype("int16" + _suffix(inputs))
        lanes = _lanes(inputs)
        return inputs ^ (avx2.splat(-128, "int8", lanes) if lanes > 1 else tirx.const(-128, "int8"))

    def load_weights(self, w: tirx.Buffer, indices: Sequence[Expr | int]) -> Expr:
        """Return the weights of one step for eight sums, [8, group] from `indices` of a packed [.., 8, group]."""
        weights = load(w, [*indices, 0, 0], LANES * self.group)
        return weights.astype("int16x16") if self.group == 2 else weights

    def dot(self, acc: Expr, word: Expr, weights: Expr) -> Expr:
        """Return int32x8 acc + the products of a broadcast word of inputs and a step's weights."""
        if self.group == 2:
            return avx2.dot_int16(acc, word, weights)
        return avx2.dot_unsigned_signed(acc, word, weights)

    def packed(self, inputs: int, channels: int, weights: int = 1) -> list[tuple[Packing, TensorType]]:
        """Return how w, bias and mult (arguments from `weights`) of a product are packed, and their types.

        w int8[vectors, 1, steps, 8, group], bias int32 and mult float32 [8 * vectors].
        """
        vectors, steps = vectors_of(channels), round_up(inputs, self.group) // self.group
        w, bias, mult = range(weights, weights + 3)
        starts: Packing = PaddedChannels(bias, (bias,), LANES)
        if self.group == 4:
            starts = BiasOfUnsigned(bias, (bias, w), LANES)
        return [
            (PackedDots(w, (w,), LANES, self.group), ((vectors, 1, steps, LANES, self.group), "int8")),
            (starts, ((vectors * LANES,), "int32")),
            (PaddedChannels(mult, (mult,), LANES), ((vectors * LANES,), "float32")),
        ]


PAIRS = Products("x86_avx2", 2, "int16", sums=8, cost=2)
QUADS = Products("x86_avxvnni", 4, "int8", sums=12, cost=1)


def vectors_of(channels: int) -> int:
    """Return how many vectors of sums hold `channels`."""
    return -(-channels // LANES)


def _lanes(value: Expr) -> int:
    return int(str(value.ty.dtype).partition("x")[2] or 1)


def _suffix(value: Expr) -> str:
    return f"x{_lanes(value)}" if _lanes(value) > 1 else ""
