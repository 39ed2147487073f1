"""Depthwise convolution by vpmaddwd: two input rows of one column, side by side as int16, meet two taps of a column.

An output row i needs input rows i .. i + KH - 1, so ceil((R + KH - 1) / 2) pairs of rows serve R output rows, each
with its taps shifted to where its rows lie. The pairs are a loop: LLVM takes long, and spills, over sums of more than a
row of taps that it may reorder. Channels run 8 at a time; the last 8 may overlap those before.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from tvm import tirx
from tvm.tirx.script.builder import ir as T

from ...intrinsics import x86_avx2 as avx2
from ...kernels import Depthwise
from ...kernels.packing import Packing
from ..space import Decisions, Knob, Space
from ..vector_unit import divisors
from ..x86.depthwise import grouped_taps
from ..x86.emit import Expr, Register, bind, build_function, load, store
from .epilogue import LANES, MAX_VECTORS, Table, requantize, slice_bytes

GROUP = 2
REGISTERS = 12
MAX_TILE_ROWS = 4
BUILD_COST = 6
"""Instructions to put two rows of a column side by side."""
DOT_COST = 2
MAX_UNROLLED = 120
"""vpmaddwd that one pair of rows may spell out: it bounds code size."""


@dataclasses.dataclass(frozen=True)
class DepthwiseTapPairs(Packing):
    """Weights [KH, KW, C] as int16[vectors, pairs, KW, R, 8, 2]: half b of pair p is tap 2 p + b - r of output row r.

    Vector v holds channels from min(8 v, C - 8).
    """

    rows: int

    kind = "depthwise_tap_pairs"

    def pack(self, *arrays: np.ndarray) -> np.ndarray:
        """See the class docstring."""
        (w,) = arrays
        paired = grouped_taps(w.astype(np.int16), self.rows, GROUP, LANES)
        return np.ascontiguousarray(paired.transpose(0, 1, 3, 4, 5, 2))


def pairs_of(kh: int, rows: int) -> int:
    """Return how many pairs of input rows serve `rows` output rows."""
    return -(-(rows + kh - 1) // GROUP)


@dataclasses.dataclass(frozen=True)
class DepthwiseTile:
    """rows x columns output pixels whose sums stay in registers."""

    rows: int
    columns: int


def dots_of(kernel: Depthwise, tile: DepthwiseTile) -> int:
    """Return the vpmaddwd of one tile, eight channels and one pair of rows."""
    return kernel.kw * tile.columns * tile.rows


def fits(kernel: Depthwise, tile: DepthwiseTile) -> bool:
    """Return whether a tile divides the output, fits the registers and is not too much code."""
    oh, ow = kernel.out_hw
    divides = oh % tile.rows == 0 and ow % tile.columns == 0
    small = tile.rows == tile.columns == 1 or dots_of(kernel, tile) <= MAX_UNROLLED
    return divides and tile.rows * tile.columns <= REGISTERS and small


def is_supported(kernel: Depthwise) -> bool:
    """Return whether `build_depthwise` covers this shape."""
    # Overlapping channels are computed twice, which a residual in the output's memory would not survive.
    strides = kernel.stride_h == kernel.stride_w == 1
    return (
        strides
        and kernel.c >= LANES
        and kernel.epilogue != "residual"
        and dots_of(kernel, DepthwiseTile(1, 1)) <= MAX_UNROLLED
    )


def choose_tile(kernel: Depthwise) -> DepthwiseTile:
    """Return the tile of least cost per pixel."""
    best: tuple[float, DepthwiseTile] | None = None
    for tile in _tiles(kernel):
        pixels = tile.rows * tile.columns
        pair = BUILD_COST * (tile.columns + kernel.kw - 1) + DOT_COST * dots_of(kernel, tile)
        cost = pair * pairs_of(kernel.kh, tile.rows) / pixels + 8 / min(tile.columns, MAX_VECTORS)
        if best is None or cost < best[0]:
            best = (cost, tile)
    assert best is not None
    return best[1]


def _tiles(kernel: Depthwise) -> list[DepthwiseTile]:
    oh, ow = kernel.out_hw
    rows = [d for d in divisors(oh) if d <= MAX_TILE_ROWS]
    columns = [d for d in divisors(ow) if d <= REGISTERS]
    tiles = [DepthwiseTile(r, c) for r in rows for c in columns]
    return [tile for tile in tiles if fits(kernel, tile)]


def depthwise_space(kernel: Depthwise, func: tirx.PrimFunc) -> Space:
    """Return the space of a depthwise kernel."""
    default, tiles = choose_tile(kernel), _tiles(kernel)

    def together(d: Decisions) -> bool:
        return DepthwiseTile(d["rows"], d["columns"]) in tiles

    return Space(
        "x86_avx2.depthwise",
        lambda d: build_depthwise(kernel, func, DepthwiseTile(d["rows"], d["columns"])),
        (
            Knob("rows", tuple(sorted({tile.rows for tile in tiles})), default.rows),
            Knob("columns", tuple(sorted({tile.columns for tile in tiles})), default.columns),
        ),
        together,
    )


def build_depthwise(kernel: Depthwise, func: tirx.PrimFunc, tile: DepthwiseTile) -> tirx.PrimFunc:
    """Return `func` for AVX2; one parallel iteration per block of output rows."""
    vectors, pairs = -(-kernel.c // LANES), pairs_of(kernel.kh, tile.rows)
    oh, _ = kernel.out_hw

    def body(*buffers: tirx.Buffer) -> None:
        blocks = oh // tile.rows
        emitter = _Emitter(kernel, tile, buffers)
        with T.parallel(kernel.n * blocks) as block:
            emitter.image = bind("n", tirx.floordiv(block, blocks))
            emitter.first_row = bind("i", tirx.floormod(block, blocks) * tile.rows)
            if kernel.epilogue == "lut":
                emitter.table = Table(emitter.extra[0])
            with T.serial(vectors) as vector:
                emitter.vector = vector
                emitter.channel = bind("channel", tirx.min(vector * LANES, tirx.const(kernel.c - LANES, "int32")))
                emitter.row_block()

    weights = DepthwiseTapPairs(1, (1,), tile.rows)
    shape = (vectors, pairs, kernel.kw, tile.rows, LANES, GROUP)
    return build_function(kernel, func, body, [(weights, (shape, "int16"))])


class _Emitter:
    """Emits one block of output rows, 8 channels at a time."""

    image: Expr
    first_row: Expr
    vector: Expr
    channel: Expr
    rows: list[Expr]
    keep: Expr
    fill: Expr

    def __init__(self, kernel: Depthwise, tile: DepthwiseTile, buffers: tuple[tirx.Buffer, ...]) -> None:
        self.kernel, self.tile = kernel, tile
        self.x, self.w, self.bias, self.mult, qp, *self.extra = buffers
        self.y = buffers[-1]
        self.pairs = pairs_of(kernel.kh, tile.rows)
        self.zero_point = bind("zp_out", qp[1])
        self.pad = bind("pad", qp[0] & 0xFFFF)
        oh, _ = kernel.out_hw
        self.pads_rows = kernel.pad_top > 0 or oh + kernel.kh - 1 - kernel.pad_top > kernel.h
        self.table: Table | None = None

    def bind_rows(self, pair: Expr) -> None:
        """Emit where the two input rows of a pair lie and, if rows may be missing, the masks that put padding there."""
        h = self.kernel.h
        keep = fill = tirx.const(0, "int32")
        self.rows = []
        for b in range(GROUP):
            row = self.first_row + pair * GROUP + (b - self.kernel.pad_top)
            inside = tirx.all(row >= 0, row < h)
            keep = keep | tirx.Select(inside, _half(b), tirx.const(0, "int32"))
            fill = fill | tirx.Select(inside, tirx.const(0, "int32"), self.pad << (16 * b))
            clamped = tirx.max(tirx.min(row, tirx.const(h - 1, "int32")), tirx.const(0, "int32"))
            self.rows.append(bind("row", clamped))
        self.keep, self.fill = (bind("mask", avx2.splat(mask, "int32", LANES)) for mask in (keep, fill))

    def row_block(self) -> None:
        """Emit all columns: those whose windows reach outside one by one, a loop over the others."""
        kernel, columns = self.kernel, self.tile.columns
        _, ow = kernel.out_hw
        blocks = ow // columns
        reach = columns + kernel.kw - 1 - kernel.pad_left
        inner = [b for b in range(blocks) if b * columns >= kernel.pad_left and b * columns + reach <= kernel.w]
        for b in range(blocks):
            if b not in inner:
                self.column_block(b * columns, range(-b * columns, kernel.w - b * columns))
            elif b == inner[0]:
                with T.serial(len(inner)) as block:
                    self.column_block((block + b) * columns, None)

    def column_block(self, first: Expr | int, image: range | None) -> None:
        """Emit the columns from `first`; `image`: which columns, seen from there, exist (None: all)."""
        kernel, tile = self.kernel, self.tile
        sums = [[Register(f"sum_{r}_{j}", lanes=LANES) for j in range(tile.columns)] for r in range(tile.rows)]
        start = bind("start", load(self.bias, [self.channel], LANES))
        for register in (register for row in sums for register in row):
            register.set(start)
        with T.serial(self.pairs) as pair:
            self.bind_rows(pair)
            for column in range(tile.columns + kernel.kw - 1):
                offset = column - kernel.pad_left
                inputs = self.side_by_side(first + offset, image is None or offset in image)
                for kw in range(max(0, column - tile.columns + 1), min(kernel.kw, column + 1)):
                    for r in range(tile.rows):
                        weights = load(self.w, [self.vector, pair, kw, r, 0, 0], LANES * GROUP)
                        total = sums[r][column - kw]
                        total.set(avx2.dot_int16(total.get(), inputs, weights))
        for r in range(tile.rows):
            for j in range(0, tile.columns, MAX_VECTORS):
                self.finish([register.get() for register in sums[r][j : j + MAX_VECTORS]], r, first + j)

    def side_by_side(self, column: Expr | int, exists: bool) -> Expr:
        """Emit int32x8: per channel two rows of one column as int16."""
        if not exists:
            return bind("inputs", avx2.splat(self.pad * 0x00010001, "int32", LANES))
        channel = self.channel + self.kernel.x_offset
        rows = [load(self.x, [self.image, row, column, channel], LANES) for row in self.rows]
        order = [tirx.const(LANES * b + c, "int32") for c in range(LANES) for b in range(GROUP)]
        inputs = avx2.as_type("int32x8", tirx.Shuffle(rows, order).astype("int16x16"))
        if self.pads_rows:
            inputs = (inputs & self.keep) | self.fill
        return bind("inputs", inputs)

    def finish(self, sums: list[Expr], row: int, column: Expr | int) -> None:
        """Emit the epilogue of up to four pixels."""
        multiplier = load(self.mult, [self.channel], LANES)
        out = bind("q", requantize(sums, [multiplier] * len(sums), self.zero_point))
        if self.table is not None:
            (out,) = self.table([out])
        for pixel in range(len(sums)):
            position = [self.image, self.first_row + row, column + pixel, self.channel + self.kernel.y_offset]
            store(self.y, position, slice_bytes(out, LANES * pixel, LANES), LANES)


def _half(place: int) -> Expr:
    """Return an int32 whose 16-bit half `place` is all ones."""
    return tirx.const(int(np.uint32(0xFFFF << (16 * place)).view(np.int32)), "int32")
