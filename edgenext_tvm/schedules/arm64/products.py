"""Sums of int8 products in registers, for a tile of rows x channels: by sdot, or by smull and smlal.

sdot (dotprod) adds 16 products an instruction. Without it smull and smlal add two products of int8 into int16, which
fits: weights are in [-127, 127], and 2 * 127 * 128 < 2^15; sadalp adds the int16 sums in pairs to int32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvm import tirx
from tvm.tirx import Expr

from ...intrinsics import arm_neon as neon
from ...kernels.packing import PackedDots, Packing
from .function import Registers, bind
from .packing import PackedPairs, PackedQuads


@dataclass(frozen=True)
class Tile:
    """rows x (4 * quads) int32 sums."""

    rows: int
    quads: int


class WholeSums:
    """One register of sums per quad of channels, which need not be added to each other."""

    tile: Tile
    sums_per_quad = 1

    def start(self, sums: Registers, bias: Sequence[Expr]) -> None:
        for r in range(self.tile.rows):
            for v, value in enumerate(bias):
                sums.set(r * self.tile.quads + v, value)

    def total(self, sums: Registers, row: int, quad: int) -> Expr:
        return sums.get(row * self.tile.quads + quad)


class Sdot(WholeSums):
    """Products by sdot: one register of sums per quad of channels."""

    x_dtype = "int8"
    inputs_per_row = 1  # registers that one row's inputs take
    slot_lanes = 4  # consecutive products that one group of weights serves
    item_bytes = 4
    xca_rows = 4
    max_sums = 24  # of 32 registers: the others hold inputs and weights
    max_rows = 8

    @staticmethod
    def loads(rows: int, quads: int, expanded: bool) -> float:
        """Instructions that bring operands for 16 products a sum: a load a row, paired loads of weights."""
        return rows + 2 * quads

    def __init__(self, tile: Tile, segments: int, length: int) -> None:
        self.tile = tile
        self.shape = (segments, -(-length // 4), 4 * tile.quads, 4)
        self.segment = length

    def packing(self, argument: int) -> Packing:
        return PackedDots(argument, (argument,), 4 * self.tile.quads, 4, self.segment)

    @staticmethod
    def byte_of(quad: Expr | int, lane: int, k: int) -> Expr | int:
        """Where the weight of channel 4 * quad + lane lies in the group of product k."""
        return quad * 16 + lane * 4 + k

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
        """Add the products of one int8 vector per row, bytes [k, k + lanes) of the segment; the sums are not set."""
        assert not first
        for j in range(neon.lanes_of(xs[0]) // 4):
            for v in range(self.tile.quads):
                weights = bind(w.vload([panel, segment, k // 4 + j, 4 * v, 0], "int8x16"), "w")
                for r, x in enumerate(xs):
                    index = r * self.tile.quads + v
                    sums.set(index, neon.sdot(sums.get(index), weights, neon.dup_quad(x, j)))


class Smlal:
    """Products by smull and smlal: a register of sums holds two partial sums of each of two channels."""

    x_dtype = "int8"
    sums_per_quad = 2
    inputs_per_row = 1
    per_group = 1  # registers that eight inputs are expanded to
    slot_lanes = 8
    item_bytes = 16
    xca_rows = 2
    max_sums = 16  # LLVM overlaps up to eight products, which also need registers
    max_rows = 8

    @staticmethod
    def loads(rows: int, quads: int, expanded: bool) -> float:
        """Instructions that bring operands for 8 products a sum: a load and a zip a row, paired loads of weights.

        expanded: the zips were done before, and loads of a row are paired.
        """
        return (0.5 if expanded else 2) * rows + quads

    def __init__(self, tile: Tile, segments: int, length: int) -> None:
        self.tile = tile
        self.shape = (segments, -(-length // 8), 2 * tile.quads, 16)
        self.segment = length

    def packing(self, argument: int) -> Packing:
        return PackedPairs(argument, (argument,), 4 * self.tile.quads, self.segment)

    @staticmethod
    def byte_of(quad: Expr | int, lane: int, k: int) -> Expr | int:
        """Where the weight of channel 4 * quad + lane lies in the group of product k."""
        return quad * 32 + lane // 2 * 16 + k // 4 * 8 + lane % 2 * 4 + k % 4

    def start(self, sums: Registers, bias: Sequence[Expr]) -> None:
        zero = neon.splat(tirx.const(0, "int32"), 4)
        pairs = [bind(neon.shuffle([value, zero], at), "b") for value in bias for at in ((0, 4, 1, 5), (2, 6, 3, 7))]
        for r in range(self.tile.rows):
            for p, value in enumerate(pairs):
                sums.set(r * len(pairs) + p, value)

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
        """Add the products of one int8 vector per row, bytes [k, k + lanes) of the segment; first: set the sums."""
        expanded = [self.expand(x) for x in xs]
        for half in range(len(expanded[0])):
            xs2 = [bind(row[half], "x2") for row in expanded]
            vector = k // 8 * self.per_group + half
            self.add_expanded(sums, w, panel, segment, vector, xs2, first and half == 0)

    @staticmethod
    def expand(x: Expr) -> list[Expr]:
        """Per eight bytes of x one int8x16: the first four twice, then the last four twice (zeros where x ends)."""
        lanes = neon.lanes_of(x)
        if lanes == 4:
            twice = tirx.reinterpret("int8x8", neon.splat(tirx.reinterpret("int32", x), 2))
            return [neon.concat(twice, neon.splat(tirx.const(0, "int8"), 8))]
        words = tirx.reinterpret(f"int32x{lanes // 4}", x)
        orders = [[2 * half, 2 * half, 2 * half + 1, 2 * half + 1] for half in range(lanes // 8)]
        return [tirx.reinterpret("int8x16", neon.shuffle([words], order)) for order in orders]

    def add_expanded(
        self,
        sums: Registers,
        w: tirx.Buffer,
        panel: Expr,
        segment: Expr,
        group: Expr,
        xs: Sequence[Expr],
        first: bool = False,
    ) -> None:
        """Add the products of one expanded vector per row, the `group`-th of the segment.

        first: the sums hold nothing yet and are set.
        """
        pairs = self.sums_per_quad * self.tile.quads
        for p in range(pairs):
            weights = bind(w.vload([panel, segment, group, p, 0], "int8x16"), "w")
            for r, x in enumerate(xs):
                products = neon.smull(neon.low(weights, 8), neon.low(x, 8))
                products = products + neon.smull(neon.high(weights, 8), neon.high(x, 8))
                total = neon.pairs(products) if first else neon.sadalp(sums.get(r * pairs + p), products)
                sums.set(r * pairs + p, total)

    def total(self, sums: Registers, row: int, quad: int) -> Expr:
        first = 2 * (row * self.tile.quads + quad)
        return neon.addp(sums.get(first), sums.get(first + 1))


class SmlalQuads(WholeSums, Smlal):
    """The same with whole sums of four channels a register, and twice the bytes of expanded inputs.

    It pays where many panels of channels share an expanded row: no sums are left to be added to each other.
    """

    per_group = 2
    max_sums = 8  # with more LLVM spills, as their epilogues overlap too

    @staticmethod
    def loads(rows: int, quads: int, expanded: bool) -> float:
        """Instructions that bring operands for 8 products a sum."""
        return (1 if expanded else 3) * rows + quads

    def __init__(self, tile: Tile, segments: int, length: int) -> None:
        super().__init__(tile, segments, length)
        self.shape = (segments, 2 * -(-length // 8), tile.quads, 16)

    def packing(self, argument: int) -> Packing:
        return PackedQuads(argument, (argument,), 4 * self.tile.quads, self.segment)

    @staticmethod
    def expand(x: Expr) -> list[Expr]:
        """Per four bytes of x one int8x16: the first two four times, then the last two four times."""
        if neon.lanes_of(x) == 4:
            x = neon.concat(x, neon.splat(tirx.const(0, "int8"), 4))
        lanes = neon.lanes_of(x) // 2
        halves = tirx.reinterpret(f"int16x{lanes}", x)
        orders = [[at] * 4 + [at + 1] * 4 for at in range(0, lanes, 2)]
        return [tirx.reinterpret("int8x16", neon.shuffle([halves], order)) for order in orders]


Products = Sdot | Smlal
"""The sums of either instruction."""
