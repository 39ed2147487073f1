"""Sums of int8 products in q registers on Armv7, for a tile of rows x channels, by vmull, vmlal and vpadal.

vmull and vmlal add two products of int8 into int16, which fits: weights are in [-127, 127], and 2 * 127 * 128 < 2^15.
vpadal adds the int16 sums in pairs to int32: three instructions for 16 products. One register of sums belongs to one
row and two neighbouring channels, two partial sums each.

The inputs of a tile of rows are first written to scratch as the products want them: the first four of eight bytes
twice, then the last four twice, the rows of a tile side by side. So the innermost loop walks two pointers, and every
load, which on Armv7 knows no offset, moves its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx
from tvm.tirx import Expr

from ...intrinsics import armv7_neon as neon
from ...intrinsics.arm_neon import shuffle, splat
from ...kernels.packing import Packing
from ..arm64.function import Registers, bind, loop, store_vector
from ..arm64.packing import PackedPairs

GROUP = 8
"""Products of a sum that one vector of weights serves."""
CACHED_WEIGHTS = 24 * 1024
"""Bytes of weights that stay in a Cortex-A7's first-level cache of 32 KiB beside inputs and sums."""
BLOCK_ROWS = 8
"""Rows that share one reading of more weights than that."""

Read = Callable[[int, Expr | int, Expr | int, int], Expr]
"""(row of the tile, segment, first byte, lanes) -> int8 inputs."""


@dataclass(frozen=True)
class Tile:
    """rows x (2 * pairs) channels of sums; pairs is even, so that whole registers of four channels result."""

    rows: int
    pairs: int

    @property
    def channels(self) -> int:
        """Channels of the tile."""
        return 2 * self.pairs

    @property
    def quads(self) -> int:
        """Registers of four channels a row."""
        return self.pairs // 2

    @property
    def instructions(self) -> float:
        """Instructions for one product of every sum: loads of inputs and weights, then the products."""
        return (self.rows + self.pairs + 3 * self.rows * self.pairs) / (self.rows * self.pairs)


@dataclass(frozen=True)
class Product:
    """x[rows, inputs] @ w[inputs, channels] by tiles; each row is `segments` runs of `length` bytes.

    weights  index of the parameter that holds w
    unroll   groups of eight inputs that one iteration of the innermost loop does
    """

    segments: int
    length: int
    channels: int
    tile: Tile
    weights: int
    unroll: int

    @property
    def groups(self) -> int:
        """Groups of eight inputs of a row; the last one may be half."""
        return -(-self.segments * self.length // GROUP)

    @property
    def panels(self) -> int:
        """Blocks of channels."""
        return self.channels // self.tile.channels

    @property
    def packing(self) -> Packing:
        """The layout of the weights."""
        return PackedPairs(self.weights, (self.weights,), self.tile.channels)

    @property
    def packed_shape(self) -> tuple[int, ...]:
        """Shape of the packed weights."""
        return (self.panels, 1, self.groups, self.tile.pairs, 2 * GROUP)

    @property
    def expanded_bytes(self) -> int:
        """Bytes of one tile of inputs as `expand` writes it."""
        return self.groups * self.tile.rows * 2 * GROUP

    def expand(self, scratch: tirx.Buffer, base: Expr, read: Read) -> None:
        """Emit writing a tile of inputs to `scratch` from byte `base` on; length is a multiple of four."""
        stride = self.tile.rows * 2 * GROUP

        def write(segment: Expr | int, k: Expr | int, lanes: int, at: Expr | int) -> None:
            # at: position of the bytes in the row, in units of four
            for r in range(self.tile.rows):
                x = bind(read(r, segment, k, lanes), "x")
                words = tirx.reinterpret("int32" if lanes == 4 else f"int32x{lanes // 4}", x)
                start = base + r * 2 * GROUP
                if lanes == 4:
                    where = start + at // 2 * stride + at % 2 * GROUP
                    store_vector(scratch, [where], tirx.reinterpret("int8x8", splat(words, 2)), GROUP)
                    continue
                for half in range(lanes // GROUP):
                    order = [2 * half, 2 * half, 2 * half + 1, 2 * half + 1]
                    value = tirx.reinterpret("int8x16", shuffle([words], order))
                    store_vector(scratch, [start + (at // 2 + half) * stride], value, 2 * GROUP)

        if self.segments == 1 or self.length % GROUP == 0:
            with loop(self.segments, "segment") as segment:
                first = segment * (self.length // 4)
                if self.length // 16:
                    with loop(self.length // 16, "k") as k:
                        write(segment, k * 16, 16, first + k * 4)
                done = self.length // 16 * 16
                for lanes in (8, 4):
                    if self.length - done >= lanes:
                        write(segment, done, lanes, first + done // 4)
                        done += lanes
        else:
            for segment in range(self.segments):
                for k in range(0, self.length, 4):
                    write(segment, k, 4, (segment * self.length + k) // 4)
        if self.segments * self.length % GROUP:
            # The last half group has weights of zero, but must be something: other scratch may hold anything.
            last = self.segments * self.length // GROUP * stride + GROUP
            for r in range(self.tile.rows):
                store_vector(scratch, [base + last + r * 2 * GROUP], splat(tirx.const(0, "int8"), GROUP), GROUP)

    def emit_sums(self, scratch: tirx.Buffer, base: Expr, w: tirx.Buffer, panel: Expr) -> list[list[tirx.Var]]:
        """Emit the products of an expanded tile with a panel of weights; int32x4 sums by row and quad of channels."""
        rows, pairs = self.tile.rows, self.tile.pairs
        sums = Registers("sums", rows * pairs, "int32x4")
        stride = rows * 2 * GROUP
        zero = tirx.IntImm("int32", 0)

        def add(group: Expr | int, sets: bool) -> None:
            xs = [bind(scratch.vload([base + group * stride + r * 2 * GROUP], "int8x16"), "x") for r in range(rows)]
            for p in range(pairs):
                weights = bind(w.vload([panel, zero, group, p, 0], "int8x16"), "w")
                for r, x in enumerate(xs):
                    products = neon.vmull(neon.low(weights, 8), neon.low(x, 8))
                    products = products + neon.vmull(neon.high(weights, 8), neon.high(x, 8))
                    index = r * pairs + p
                    sums.set(index, neon.vpaddl(products) if sets else neon.vpadal(sums.get(index), products))

        unroll = min(self.unroll, self.groups)
        # The rest of the loop stands before it, where the first group sets the sums instead of adding to them.
        first = 0 if self.groups > unroll and self.groups % unroll == 0 else (self.groups - 1) % unroll + 1
        if first == 0:
            for index in range(sums.count):
                sums.set(index, splat(tirx.const(0, "int32"), 4))
        for group in range(first):
            add(group, group == 0)
        if self.groups > first:
            with loop((self.groups - first) // unroll, "k") as k:
                for u in range(unroll):
                    add(first + k * unroll + u, False)
        return [[self._quad(sums, r * pairs + 2 * q) for q in range(self.tile.quads)] for r in range(rows)]

    @staticmethod
    def _quad(sums: Registers, index: int) -> tirx.Var:
        """int32x4 totals of four channels, from two registers of two channels."""
        halves = [neon.add_pairs(neon.low(s, 2), neon.high(s, 2)) for s in (sums.get(index), sums.get(index + 1))]
        return bind(neon.concat(*halves), "acc")
