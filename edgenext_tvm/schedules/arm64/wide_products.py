"""Sums of products of wide inputs (int16, 12 bits) and int8 weights, in registers: by sdot, or by smlal of an element.

sdot (dotprod) takes a wide x as two int8: x = 16 * high + low with high in [-128, 127] and low in [0, 15]. Without it
smlal multiplies x by weights widened to int16, four products an instruction.
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx
from tvm.tirx import Expr

from ...intrinsics import arm_neon as neon
from ...kernels.packing import PackedDots, Packing
from .function import Registers, bind
from .products import Products, Sdot, Tile, WholeSums

LOW_BITS = 4
"""Of the 12 bits of a wide input; the other eight are an int8."""


class WideSdot(Sdot):
    """Products by sdot: the tile has twice the rows, one for the high and one for the low parts of each row.

    Weights are loaded once for both.
    """

    x_dtype = "int16"
    sums_per_quad = 2
    inputs_per_row = 2

    @staticmethod
    def loads(rows: int, quads: int, expanded: bool) -> float:
        """Instructions that bring operands for 16 products a sum: a paired load and four that split it a row."""
        return 5 * rows + 2 * quads

    def start(self, sums: Registers, bias: Sequence[Expr]) -> None:
        zero = neon.splat(tirx.const(0, "int32"), 4)
        for r in range(self.tile.rows):
            for v, value in enumerate(bias):
                sums.set(2 * r * self.tile.quads + v, zero)
                sums.set((2 * r + 1) * self.tile.quads + v, value)

    def add(
        self,
        sums: Registers,
        w: tirx.Buffer,
        panel: Expr,
        segment: Expr,
        k: Expr,
        xs: Sequence[Expr],
        first: bool = False,
    ) -> None:
        """Add the products of one int16 vector per row, inputs [k, k + lanes) of the segment; the sums are not set."""
        parts = [bind(part, "part") for x in xs for part in self.split(x)]
        super().add(sums, w, panel, segment, k, parts, first)

    @staticmethod
    def split(x: Expr) -> tuple[Expr, Expr]:
        """(high, low) int8 parts of an int16 vector: shrn; uzp1 and and."""
        lanes = neon.lanes_of(x)
        high = x >> neon.splat(tirx.const(LOW_BITS, "int16"), lanes)
        mask = neon.splat(tirx.const((1 << LOW_BITS) - 1, "int8"), lanes)
        return high.astype(f"int8x{lanes}"), x.astype(f"int8x{lanes}") & mask

    def total(self, sums: Registers, row: int, quad: int) -> Expr:
        high, low = (sums.get((2 * row + part) * self.tile.quads + quad) for part in range(2))
        return (high << neon.splat(tirx.const(LOW_BITS, "int32"), 4)) + low


class WideSmlal(WholeSums):
    """Products of wide inputs by smlal of an element. Weights are widened on the way, once for all rows of the tile."""

    x_dtype = "int16"
    inputs_per_row = 1
    max_sums = 20
    max_rows = 6  # with more LLVM spills, as an element must be in one of the lower sixteen registers

    @staticmethod
    def loads(rows: int, quads: int, expanded: bool) -> float:
        """Instructions that bring operands for 8 products a sum: a load a row, paired loads and widening of weights."""
        return rows + 5 * quads

    def __init__(self, tile: Tile, segments: int, length: int) -> None:
        self.tile = tile
        self.shape = (segments, length, 4 * tile.quads, 1)
        self.segment = length

    def packing(self, argument: int) -> Packing:
        return PackedDots(argument, (argument,), 4 * self.tile.quads, 1, self.segment)

    def add(
        self,
        sums: Registers,
        w: tirx.Buffer,
        panel: Expr,
        segment: Expr,
        k: Expr,
        xs: Sequence[Expr],
        first: bool = False,
    ) -> None:
        """Add the products of one int16 vector per row, inputs [k, k + lanes) of the segment; the sums are not set."""
        assert not first
        quads = self.tile.quads
        # Four quads of weights fill a register, whichever products they belong to; lanes are a multiple of four.
        for at in range(0, neon.lanes_of(xs[0]) * quads, 4):
            weights = bind(w.vload([panel, segment, k + at // quads, at % quads * 4, 0], "int8x16"), "w")
            halves = [bind(part(weights, 8).astype("int16x8"), "wide") for part in (neon.low, neon.high)]
            for index, part in enumerate((neon.low, neon.high) * 2):
                lane, v = divmod(at + index, quads)
                quad = part(halves[index // 2], 4)
                for r, x in enumerate(xs):
                    product = neon.smull(quad, neon.shuffle([x], [lane] * 4))
                    sums.set(r * quads + v, sums.get(r * quads + v) + product)


AnyProducts = Products | WideSmlal
"""The sums of int8 or wide inputs."""
