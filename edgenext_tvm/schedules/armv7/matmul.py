"""dense and conv2d on Armv7 NEON: register tiles of rows x channels over packed weights, the epilogue on the tile."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from tvm import tirx
from tvm.tirx import Expr
from tvm.tirx.script.builder import ir as T

from ...intrinsics.arm_neon import shuffle, splat
from ...kernels import Conv2d, Dense
from ...kernels.window import needs_padding
from ..arm64.function import bind, build_function, loop, store_vector
from ..space import Decisions, Knob, Space
from ..vector_unit import divisors, largest_divisor
from . import epilogue as ep
from .products import BLOCK_ROWS, CACHED_WEIGHTS, GROUP, Product, Tile

MAX_SUMS = 8
"""Registers of sums, of 16: the others hold inputs, weights and products."""
MAX_ROWS = 8
MAX_PAIRS = 8
CHUNKS = 8
"""Parallel iterations a kernel has at most: each has a slot of scratch."""
UNROLLS = (1, 2, 3, 4, 6)
MAX_UNROLL = 4
MAX_STRAIGHT_GROUPS = 3
"""Groups of eight inputs that need no loop."""
TILES_AT_ONCE = (1, 2, 4, 8)


def runs_of(kernel: Dense | Conv2d) -> tuple[int, int, int] | None:
    """(segments, bytes of each, rows of a line) of the products' left operand; None if the runs are no words."""
    if isinstance(kernel, Dense):
        return (1, kernel.ci, kernel.t) if kernel.ci % 4 == 0 else None
    length = kernel.kw * kernel.ci
    return None if needs_padding(kernel) or length % 4 else (kernel.kh, length, kernel.out_hw[1])


def tiles_for(rows: int, channels: int) -> list[Tile]:
    """Tiles whose sides divide the rows of a line and the channels and whose sums fit registers, best first."""
    found = [
        Tile(r, p)
        for r in divisors(rows)
        if r <= MAX_ROWS
        for p in divisors(channels // 2)
        if p % 2 == 0 and p <= MAX_PAIRS and r * p <= MAX_SUMS
    ]
    # Eight channels are stored at once.
    return sorted(found, key=lambda tile: (tile.instructions + 0.02 * (tile.pairs % 4 != 0), tile.rows))


def default_tile(tiles: Sequence[Tile], groups: int) -> Tile:
    """The hand-picked one of `tiles`, which are sorted: few inputs stay in registers, if a tile is one row."""
    return next((t for t in tiles if t == Tile(1, 4)), tiles[0]) if groups <= MAX_STRAIGHT_GROUPS else tiles[0]


def default_unroll(groups: int) -> int:
    """Groups of inputs an iteration of the innermost loop does, at least two iterations left.

    Without a loop LLVM orders the products of many groups anew, which costs spills.
    """
    if groups <= MAX_STRAIGHT_GROUPS:
        return groups
    return max(u for u in UNROLLS if u <= MAX_UNROLL and (u == 1 or (groups - 1) // u >= 2))


def default_tiles(count: int, tile: Tile, weight_bytes: int) -> int:
    """Tiles of `count` that share one reading of the weights: one where these stay in the first-level cache."""
    if weight_bytes <= CACHED_WEIGHTS:
        return 1
    shared = [n for n in TILES_AT_ONCE if n * tile.rows <= BLOCK_ROWS and count % n == 0 and count // n >= CHUNKS]
    return max([1, *shared])


def matmul_space(kernel: Dense | Conv2d, func: tirx.PrimFunc) -> Space | None:
    """Return the kernel's space; None where its shape does not suit: channels or runs that are no quads."""
    runs = runs_of(kernel)
    if runs is None or kernel.co % 4:
        return None
    segments, length, line = runs
    count = kernel.t if isinstance(kernel, Dense) else kernel.n * kernel.out_hw[0] * kernel.out_hw[1]
    tiles = tiles_for(line, kernel.co)
    groups = -(-segments * length // GROUP)
    best, unroll = default_tile(tiles, groups), default_unroll(groups)

    def fits(decisions: Decisions) -> bool:
        tile = Tile(decisions["rows"], decisions["pairs"])
        return tile in tiles and count // tile.rows % decisions["tiles"] == 0

    def build(decisions: Decisions) -> tirx.PrimFunc:
        tile = Tile(decisions["rows"], decisions["pairs"])
        product = Product(segments, length, kernel.co, tile, 1, decisions["unroll"])
        return _Matmul(kernel, count, product, decisions["tiles"]).build(func)

    knobs = (
        Knob("rows", tuple(sorted({tile.rows for tile in tiles})), best.rows),
        Knob("pairs", tuple(sorted({tile.pairs for tile in tiles})), best.pairs),
        Knob("unroll", UNROLLS, unroll),
        Knob("tiles", TILES_AT_ONCE, default_tiles(count // best.rows, best, segments * length * kernel.co)),
    )
    return Space(f"armv7_neon.{kernel.kind}", build, knobs, fits)


class _Matmul:
    """Emits one kernel; `at_once` tiles are expanded before the weights are read, once for all of them."""

    def __init__(self, kernel: Dense | Conv2d, count: int, product: Product, at_once: int) -> None:
        self.kernel, self.product, self.at_once = kernel, product, at_once
        self.rows = product.tile.rows
        self.tiles = count // self.rows

    def build(self, func: tirx.PrimFunc) -> tirx.PrimFunc:
        return build_function(func, self._body, [self.product.packing], {1: self.product.packed_shape})

    def _body(self, **b: tirx.Buffer) -> None:
        panels = self.product.panels
        if self.tiles == 1:
            chunks = largest_divisor(panels, CHUNKS)
            with loop(chunks, "chunk", parallel=True) as chunk:
                self._tiles(b, tirx.IntImm("int32", 0), chunk * (panels // chunks), panels // chunks)
            return
        steps = self.tiles // self.at_once
        chunks = largest_divisor(steps, CHUNKS)
        with loop(chunks, "chunk", parallel=True) as chunk, loop(steps // chunks, "step") as step:
            first = (chunk * (steps // chunks) + step) * self.at_once
            self._tiles(b, first, tirx.IntImm("int32", 0), panels)

    def _tiles(self, b: dict[str, tirx.Buffer], first: Expr, first_panel: Expr, panels: int) -> None:
        product, kernel = self.product, self.kernel
        scratch = T.alloc_buffer((self.at_once * product.expanded_bytes,), "int8")

        with loop(self.at_once, "tile") as tile:
            product.expand(scratch, tile * product.expanded_bytes, partial(self._read, b["x"], first + tile))
        with loop(panels, "panel") as panel, loop(self.at_once, "tile") as tile:
            at = first_panel + panel
            sums = product.emit_sums(scratch, tile * product.expanded_bytes, b["w"], at)
            channel = at * product.tile.channels
            emit_outputs(kernel.epilogue, b, sums, channel, partial(self._output, first + tile))
        if kernel.epilogue == "lut":
            y = ep.flat(b["y"])
            if self.tiles == 1:
                for row in range(self.rows):
                    at = row * kernel.co + first_panel * product.tile.channels
                    ep.emit_look_up(y, at, b["lut"], panels * product.tile.channels)
            else:
                size = self.rows * kernel.co
                ep.emit_look_up(y, first * size, b["lut"], self.at_once * size)

    def _read(self, x: tirx.Buffer, tile: Expr, row: int, segment: Expr | int, k: Expr | int, lanes: int) -> Expr:
        kernel = self.kernel
        if isinstance(kernel, Dense):
            return x.vload([tile * self.rows + row, k], f"int8x{lanes}")
        n, i, j = self._pixel(tile, row)
        # A row of the window is `length` neighbours in memory, over the ends of its pixels.
        return x.vload([n, i * kernel.stride_h + segment, j * kernel.stride_w, k], f"int8x{lanes}")

    def _pixel(self, tile: Expr, row: int) -> tuple[Expr, Expr, Expr]:
        assert isinstance(self.kernel, Conv2d)
        oh, ow = self.kernel.out_hw
        per_line = ow // self.rows
        line = tirx.floordiv(tile, per_line)
        column = tirx.floormod(tile, per_line) * self.rows + row
        return tirx.floordiv(line, oh), tirx.floormod(line, oh), column

    def _output(self, tile: Expr, row: int, channel: Expr) -> list[Expr]:
        if isinstance(self.kernel, Dense):
            return [tile * self.rows + row, channel]
        return [*self._pixel(tile, row), channel]


def emit_outputs(
    epilogue: str,
    b: Mapping[str, tirx.Buffer],
    sums: Sequence[Sequence[Expr]],
    channel: Expr,
    where: Callable[[int, Expr], list[Expr]],
    biased: bool = False,
) -> None:
    """Emit the epilogue of a tile's sums; `where(row, channel)` gives the indices of y, and of a residual.

    biased: the sums hold the bias already. With a table, y holds its indices afterwards: `ep.emit_look_up` finishes.
    """
    quads = len(sums[0])
    if not biased:
        bias = [bind(b["bias"].vload([channel + 4 * q], "int32x4"), "bias") for q in range(quads)]
        sums = [[acc + bias[q] for q, acc in enumerate(row)] for row in sums]
    mult = [bind(b["mult"].vload([channel + 4 * q], "float32x4"), "mult") for q in range(quads)]
    scaled = [[ep.scaled(acc, mult[q]) for q, acc in enumerate(row)] for row in sums]
    if str(b["y"].dtype) == "float32":
        for r, row in enumerate(scaled):
            for q, value in enumerate(row):
                store_vector(b["y"], where(r, channel + 4 * q), value, 4)
        return
    requantize = ep.Requantize.to(b["qp"][1], epilogue == "lut")
    if epilogue == "residual":
        m_r = bind(splat(b["rp"][1], 4), "m_r")
        start = bind(splat(tirx.const(0, "int32") - b["rp"][0] * b["rp"][1], 4), "start")
        rs = bind(splat(b["rs"][0], 4), "rs")
    places = [(r, q) for r in range(len(sums)) for q in range(quads)]
    for i in range(0, len(places), 2):
        two = places[i : i + 2]
        whole = len(two) == 2 and two[0][0] == two[1][0]
        values = [scaled[r][q] for r, q in two]
        if epilogue == "residual":
            residuals = []
            for r, q in two[:1] if whole else two:
                lanes = 8 if whole else 4
                residuals += ep.residual_quads(b["r"].vload(where(r, channel + 4 * q), f"int8x{lanes}"))
            values = [
                (ep.fixed_from_float(value) + start + residual * m_r).astype("float32x4") * rs
                for value, residual in zip(values, residuals, strict=True)
            ]
        out = requantize.eight(values[0], values[-1])
        if whole:
            store_vector(b["y"], where(two[0][0], channel + 4 * two[0][1]), out, 8)
        else:
            for half, (r, q) in enumerate(two):
                store_vector(b["y"], where(r, channel + 4 * q), shuffle([out], range(4 * half, 4 * half + 4)), 4)
