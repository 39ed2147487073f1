"""Depthwise convolution by vpdpbusd: four input rows of one column, byte by byte, meet four taps of one kernel column.

An output row i needs input rows i .. i + KH - 1, so ceil((R + KH - 1) / 4) groups of four rows serve R output
rows, each with its taps shifted to where its rows lie. Channels run 16 at a time; the last 16 may overlap those before.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from tvm import tirx
from tvm.tirx.script.builder import ir as T

from ...intrinsics import x86
from ...kernels import Depthwise
from ...kernels.packing import BiasOfUnsigned, Packing
from ..space import Decisions, Knob, Space
from ..vector_unit import divisors
from .emit import LANES, Expr, Register, bind, build_function, load, store
from .epilogue import MAX_VECTORS, Table, narrow_to_wide, requantize, rounded_products

GROUP = 4
REGISTERS = 24
MAX_ROWS = 8
BUILD_COST = 6
"""Instructions to interleave four rows of a column, relative to one vpdpbusd."""


@dataclasses.dataclass(frozen=True)
class DepthwiseTaps(Packing):
    """Weights [KH, KW, C] as int8[vectors, KW, groups, R, 16, 4]: byte b of group g is tap 4 g + b - r of output row r.

    Vector v holds channels from min(16 v, C - 16).
    """

    rows: int

    kind = "depthwise_taps"

    def pack(self, *arrays: np.ndarray) -> np.ndarray:
        """See the class docstring."""
        (w,) = arrays
        return np.ascontiguousarray(grouped_taps(w, self.rows, GROUP, LANES).transpose(0, 3, 1, 4, 5, 2))


def grouped_taps(w: np.ndarray, rows: int, group: int, lanes: int) -> np.ndarray:
    """Weights [KH, KW, C] as [vectors, groups, group, KW, rows, lanes]: item b of group g is tap group * g + b - r of
    output row r, 0 where there is none. Vector v holds channels from min(lanes * v, C - lanes).
    """
    kh, kw, c = w.shape
    shifted = np.zeros((group * -(-(rows + kh - 1) // group), kw, rows, c), w.dtype)
    for r in range(rows):
        shifted[r : r + kh, :, r] = w
    starts = [min(lanes * v, c - lanes) for v in range(-(-c // lanes))]
    vectors = np.stack([shifted[..., start : start + lanes] for start in starts])
    return vectors.reshape(len(starts), -1, group, kw, rows, lanes)


@dataclasses.dataclass(frozen=True)
class DepthwiseTile:
    """rows x columns output pixels whose sums stay in registers."""

    rows: int
    columns: int


def groups_of(kh: int, rows: int) -> int:
    """Return how many groups of four input rows serve `rows` output rows."""
    return -(-(rows + kh - 1) // GROUP)


def is_supported(kernel: Depthwise) -> bool:
    """Return whether `build_depthwise` covers this shape."""
    # Overlapping channels are computed twice, which a residual in the output's memory would not survive.
    return kernel.stride_h == kernel.stride_w == 1 and kernel.c >= LANES and kernel.epilogue != "residual"


def choose_tile(kernel: Depthwise) -> DepthwiseTile:
    """Return the tile of least cost per pixel whose sides divide the output."""
    oh, ow = kernel.out_hw
    best: tuple[float, DepthwiseTile] | None = None
    for rows in (d for d in divisors(oh) if d <= GROUP):
        for columns in (d for d in divisors(ow) if d * rows <= REGISTERS):
            groups = groups_of(kernel.kh, rows)
            build = BUILD_COST * groups * (columns + kernel.kw - 1) / (rows * columns)
            cost = build + kernel.kw * groups + 2 / min(columns, MAX_VECTORS)
            if best is None or cost < best[0]:
                best = (cost, DepthwiseTile(rows, columns))
    assert best is not None
    return best[1]


def depthwise_space(kernel: Depthwise, func: tirx.PrimFunc) -> Space:
    """Return the space of a depthwise convolution: its output tiles."""
    oh, ow = kernel.out_hw
    default = choose_tile(kernel)
    knobs = (
        Knob("rows", tuple(d for d in divisors(oh) if d <= MAX_ROWS), default.rows),
        Knob("columns", tuple(d for d in divisors(ow) if d <= REGISTERS), default.columns),
    )

    def fits(d: Decisions) -> bool:
        return d["rows"] * d["columns"] <= REGISTERS

    return Space("x86_vnni.depthwise", lambda d: build_depthwise(kernel, func, DepthwiseTile(**d)), knobs, fits)


def build_depthwise(kernel: Depthwise, func: tirx.PrimFunc, tile: DepthwiseTile | None = None) -> tirx.PrimFunc:
    """Return `func` for AVX-512; one parallel iteration per block of output rows."""
    tile = tile or choose_tile(kernel)
    vectors, groups = -(-kernel.c // LANES), groups_of(kernel.kh, tile.rows)
    oh, _ = kernel.out_hw

    def body(*buffers: tirx.Buffer) -> None:
        blocks = oh // tile.rows
        emitter = _Emitter(kernel, tile, buffers)
        with T.parallel(kernel.n * blocks) as block:
            emitter.image = bind("n", tirx.floordiv(block, blocks))
            emitter.first_row = bind("i", tirx.floormod(block, blocks) * tile.rows)
            emitter.bind_rows()
            with T.serial(vectors) as vector:
                emitter.vector = vector
                emitter.channel = bind("channel", tirx.min(vector * LANES, tirx.const(kernel.c - LANES, "int32")))
                emitter.row_block()

    weights = DepthwiseTaps(1, (1,), tile.rows)
    packed = [
        (weights, ((vectors, kernel.kw, groups, tile.rows, LANES, GROUP), "int8")),
        (BiasOfUnsigned(2, (2, 1), 1), ((kernel.c,), "int32")),
    ]
    return build_function(kernel, func, body, packed)


class _Emitter:
    """Emits one block of output rows, 16 channels at a time."""

    image: Expr
    first_row: Expr
    vector: Expr
    channel: Expr

    def __init__(self, kernel: Depthwise, tile: DepthwiseTile, buffers: tuple[tirx.Buffer, ...]) -> None:
        self.kernel, self.tile = kernel, tile
        self.x, self.w, self.bias, self.mult, qp, *extra = buffers
        self.y = buffers[-1]
        self.groups = groups_of(kernel.kh, tile.rows)
        self.zero_point = bind("zp_out", qp[1])
        self.pad = bind("pad", (qp[0] + 128) & 255)
        self.table = Table(extra[0]) if kernel.epilogue == "lut" else None

    def bind_rows(self) -> None:
        """Emit, per group of four input rows, where they lie and the masks that shift them or put padding there."""
        h = self.kernel.h
        self.rows: list[list[Expr]] = []
        self.keep: list[Expr] = []
        self.change: list[Expr] = []
        for g in range(self.groups):
            keep = change = tirx.const(0, "int32")
            rows = []
            for b in range(GROUP):
                row = self.first_row + (GROUP * g + b - self.kernel.pad_top)
                inside = tirx.all(row >= 0, row < h)
                keep = keep | tirx.Select(inside, _byte(255, b), _byte(0, b))
                change = change | tirx.Select(inside, _byte(128, b), self.pad << (8 * b))
                rows.append(bind("row", tirx.max(tirx.min(row, tirx.const(h - 1, "int32")), tirx.const(0, "int32"))))
            self.rows.append(rows)
            self.keep.append(x86.splat(bind("keep", keep), "int32", LANES))
            self.change.append(x86.splat(bind("change", change), "int32", LANES))

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
        sums = [[Register(f"sum_{r}_{j}") for j in range(tile.columns)] for r in range(tile.rows)]
        start = bind("start", load(self.bias, [self.channel], LANES))
        for register in (register for row in sums for register in row):
            register.set(start)
        for column in range(tile.columns + kernel.kw - 1):
            offset = column - kernel.pad_left
            inputs = [self.interleaved(g, first + offset, image is None or offset in image) for g in range(self.groups)]
            for kw in range(max(0, column - tile.columns + 1), min(kernel.kw, column + 1)):
                for r in range(tile.rows):
                    for g in (g for g in range(self.groups) if GROUP * g < r + kernel.kh and GROUP * g + GROUP > r):
                        weights = load(self.w, [self.vector, kw, g, r, 0, 0], x86.ZMM_BYTES)
                        total = sums[r][column - kw]
                        total.set(x86.dot_unsigned_signed(total.get(), inputs[g], weights))
        for r in range(tile.rows):
            for j in range(0, tile.columns, MAX_VECTORS):
                self.finish([register.get() for register in sums[r][j : j + MAX_VECTORS]], r, first + j)

    def interleaved(self, group: int, column: Expr | int, exists: bool) -> Expr:
        """Emit int32x16: per channel four rows of one column as uint8."""
        if not exists:
            return bind("inputs", x86.splat(self.pad * 0x01010101, "int32", LANES))
        channel = self.channel + self.kernel.x_offset
        rows = [load(self.x, [self.image, row, column, channel], LANES) for row in self.rows[group]]
        order = [tirx.const(LANES * b + c, "int32") for c in range(LANES) for b in range(GROUP)]
        bytes_ = tirx.Shuffle(rows, order)
        return bind("inputs", (x86.as_type("int32x16", bytes_) & self.keep[group]) ^ self.change[group])

    def finish(self, sums: list[Expr], row: int, column: Expr | int) -> None:
        """Emit the epilogue of up to four pixels."""
        multiplier = load(self.mult, [self.channel], LANES)
        if str(self.y.dtype) == "int16":
            rounded = rounded_products(sums, [multiplier] * len(sums))
            for pixel in range(0, len(sums), 2):
                pair = rounded[pixel : pixel + 2]
                out = bind("q", narrow_to_wide(pair[0], pair[-1], self.zero_point))
                self.store(out, row, column + pixel, len(pair))
            return
        out = bind("q", requantize(sums, [multiplier] * len(sums), self.zero_point))
        if self.table is not None:
            out = bind("out", self.table(out))
        self.store(out, row, column, len(sums))

    def store(self, values: Expr, row: int, column: Expr | int, pixels: int) -> None:
        """Emit the store of the channels of `pixels` neighbours, one after the other in `values`."""
        for pixel in range(pixels):
            position = [self.image, self.first_row + row, column + pixel, self.channel + self.kernel.y_offset]
            channels = x86.shuffle(values, list(range(LANES * pixel, LANES * pixel + LANES)))
            store(self.y, position, channels, LANES)


def _byte(value: int, place: int) -> Expr:
    """Return an int32 whose byte `place` is `value`."""
    return tirx.const(int(np.uint32(value << (8 * place)).view(np.int32)), "int32")
