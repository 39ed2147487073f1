"""inverted_bottleneck on Armv7 NEON: a few rows of hidden values at a time, on the stack or in a slot of scratch."""

from __future__ import annotations

from functools import partial

from tvm import tirx
from tvm.tirx import Expr
from tvm.tirx.script.builder import ir as T

from ...kernels import InvertedBottleneck
from ..arm64.function import build_function, loop
from ..space import Decisions, Knob, Space
from ..vector_unit import divisors, largest_divisor
from . import epilogue as ep
from .matmul import CHUNKS, MAX_ROWS, MAX_STRAIGHT_GROUPS, default_tile, default_unroll, emit_outputs, tiles_for
from .products import BLOCK_ROWS, CACHED_WEIGHTS, GROUP, Product, Tile

MAX_TILE_ROWS = 32
W1, W2 = 1, 6
"""Parameters that hold the weights."""


def bottleneck_space(kernel: InvertedBottleneck, func: tirx.PrimFunc) -> Space | None:
    """Return the kernel's space; None for channels that are no quads."""
    if kernel.ci % 4 or kernel.hidden % 4 or kernel.co % 4:
        return None
    widen_tiles, narrow_tiles = tiles_for(kernel.t, kernel.hidden), tiles_for(kernel.t, kernel.co)
    widen_groups, narrow_groups = -(-kernel.ci // GROUP), -(-kernel.hidden // GROUP)
    widen, narrow = default_tile(widen_tiles, widen_groups), default_tile(narrow_tiles, narrow_groups)
    tile_rows = [rows for rows in divisors(kernel.t) if rows <= MAX_TILE_ROWS]

    def fits(decisions: Decisions) -> bool:
        tiles = _tiles(decisions)
        whole = all(decisions["tile_rows"] % tile.rows == 0 for tile in tiles)
        return whole and tiles[0] in widen_tiles and tiles[1] in narrow_tiles

    def build(decisions: Decisions) -> tirx.PrimFunc:
        first, second = _tiles(decisions)
        products = (
            Product(1, kernel.ci, kernel.hidden, first, W1, default_unroll(widen_groups)),
            Product(1, kernel.hidden, kernel.co, second, W2, default_unroll(narrow_groups)),
        )
        return _Bottleneck(kernel, decisions["tile_rows"], *products).build(func)

    knobs = (
        Knob("tile_rows", tuple(tile_rows), _default_rows(kernel, tile_rows, max(widen.rows, narrow.rows))),
        *_tile_knobs("widen", widen_tiles, widen),
        *_tile_knobs("narrow", narrow_tiles, narrow),
    )
    return Space("armv7_neon.inverted_bottleneck", build, knobs, fits)


def _default_rows(kernel: InvertedBottleneck, choices: list[int], least: int) -> int:
    """Hidden rows at a time: as few as a tile has, more where the weights must come from the second-level cache."""
    if (kernel.ci + kernel.co) * kernel.hidden <= CACHED_WEIGHTS:
        return least
    whole = [rows for rows in choices if rows % least == 0 and rows <= BLOCK_ROWS and kernel.t // rows >= CHUNKS]
    return max([least, *whole])


def _tile_knobs(name: str, tiles: list[Tile], best: Tile) -> tuple[Knob, ...]:
    rows = sorted({tile.rows for tile in tiles if tile.rows <= MAX_ROWS})
    pairs = sorted({tile.pairs for tile in tiles})
    return (
        Knob(f"{name}_rows", tuple(rows), best.rows),
        Knob(f"{name}_pairs", tuple(pairs), best.pairs),
    )


def _tiles(decisions: Decisions) -> tuple[Tile, Tile]:
    return (
        Tile(decisions["widen_rows"], decisions["widen_pairs"]),
        Tile(decisions["narrow_rows"], decisions["narrow_pairs"]),
    )


class _Bottleneck:
    """Emits one kernel: `rows` hidden rows exist at a time."""

    def __init__(self, kernel: InvertedBottleneck, rows: int, widen: Product, narrow: Product) -> None:
        self.kernel, self.rows, self.widen, self.narrow = kernel, rows, widen, narrow

    def build(self, func: tirx.PrimFunc) -> tirx.PrimFunc:
        shapes = {W1: self.widen.packed_shape, W2: self.narrow.packed_shape}
        return build_function(func, self._body, [self.widen.packing, self.narrow.packing], shapes)

    def _body(self, **b: tirx.Buffer) -> None:
        steps = self.kernel.t // self.rows
        chunks = largest_divisor(steps, CHUNKS)
        widening = {"bias": b["bias1"], "mult": b["mult1"], "qp": b["qp1"]}
        narrowing = {**b, "bias": b["bias2"], "mult": b["mult2"], "qp": b["qp2"]}
        size = self.rows * self.kernel.hidden
        with loop(chunks, "chunk", parallel=True) as chunk:
            hidden = T.alloc_buffer((size,), "int8")
            scratch = [T.alloc_buffer((self._tiles(p) * p.expanded_bytes,), "int8") for p in (self.widen, self.narrow)]
            with loop(steps // chunks, "step") as step:
                first = (chunk * (steps // chunks) + step) * self.rows
                x, y = ep.flat(b["x"]), ep.flat(b["y"])
                self._multiply(self.widen, "lut", x, first, scratch[0], b["w1"], widening, hidden, 0)
                ep.emit_look_up(hidden, tirx.IntImm("int32", 0), b["lut"], size)
                if self.kernel.epilogue == "residual":
                    narrowing["r"] = ep.flat(b["r"])
                self._multiply(self.narrow, self.kernel.epilogue, hidden, 0, scratch[1], b["w2"], narrowing, y, first)

    def _tiles(self, product: Product) -> int:
        return self.rows // product.tile.rows

    def _multiply(
        self,
        product: Product,
        epilogue: str,
        x: tirx.Buffer,
        x_row: Expr | int,
        scratch: tirx.Buffer,
        w: tirx.Buffer,
        arguments: dict[str, tirx.Buffer],
        y: tirx.Buffer,
        y_row: Expr | int,
    ) -> None:
        """Emit the rows' product from x, flat, to y, flat, both from a first row on."""

        def read(tile: Expr, row: int, segment: Expr | int, k: Expr | int, lanes: int) -> Expr:
            return x.vload([(x_row + tile * product.tile.rows + row) * product.length + k], f"int8x{lanes}")

        def place(tile: Expr, row: int, channel: Expr) -> list[Expr]:
            return [(y_row + tile * product.tile.rows + row) * product.channels + channel]

        with loop(self._tiles(product), "tile") as tile:
            product.expand(scratch, tile * product.expanded_bytes, partial(read, tile))
        panels, tiles = (product.panels, "panel"), (self._tiles(product), "tile")
        # Few inputs stay in registers over all panels, else the weights are read once for all tiles.
        few = product.groups <= MAX_STRAIGHT_GROUPS
        with loop(*(tiles if few else panels)) as outer, loop(*(panels if few else tiles)) as inner:
            tile, panel = (outer, inner) if few else (inner, outer)
            sums = product.emit_sums(scratch, tile * product.expanded_bytes, w, panel)
            channel = panel * product.tile.channels
            emit_outputs(epilogue, {**arguments, "y": y}, sums, channel, partial(place, tile))
