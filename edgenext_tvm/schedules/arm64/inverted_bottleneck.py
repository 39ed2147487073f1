"""inverted_bottleneck on AArch64: a tile of rows is widened into scratch, looked up there and narrowed from it."""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx
from tvm.tirx import Expr
from tvm.tirx.script.builder import ir as T

from ...kernels import InvertedBottleneck
from ..space import Decisions, Knob, Space
from ..vector_unit import divisors, largest_divisor
from . import epilogue as ep
from .function import build_function, loop
from .left_operand import Rows
from .product_emitter import Indices, ProductEmitter
from .product_plan import Plan, choose_plan, choose_tile, good_tiles, products_for, widening_products
from .products import Tile

CHUNKS = 8
"""Iterations of the parallel loop: each has scratch of its own."""
MAX_TILE_ROWS = 64
DEFAULT_SCRATCH_BYTES = 12288
MAX_SCRATCH_BYTES = 16384
MAX_COST = 1.5
W1, W2 = 1, 6
"""Arguments that hold the weights."""


def inverted_bottleneck_space(
    kernel: InvertedBottleneck, func: tirx.PrimFunc, features: frozenset[str], family: str
) -> Space | None:
    """Return the kernel's space, or None where channels are no quads.

    tile_rows          rows that are widened before they are narrowed: tile_rows * H bytes of scratch
    rows1, quads1      sides of the widening product's tile
    rows2, quads2      sides of the narrowing product's tile
    """
    if kernel.ci % 4 or kernel.hidden % 4 or kernel.co % 4:
        return None
    products = products_for(features)
    chunk_rows = kernel.t // largest_divisor(kernel.t, CHUNKS)
    wide, narrow = (Rows(kernel.t, 1, length, chunk_rows) for length in (kernel.ci, kernel.hidden))
    widening = widening_products(wide, kernel.hidden, products)
    first, second = choose_tile(wide, kernel.hidden, widening), choose_tile(narrow, kernel.co, products)

    def fits_tiles(rows: int) -> bool:
        return rows % first.rows == 0 and rows % second.rows == 0

    heights = [d for d in divisors(chunk_rows) if d <= MAX_TILE_ROWS and d * kernel.hidden <= MAX_SCRATCH_BYTES]
    suitable = [d for d in heights if fits_tiles(d)]
    if not suitable:  # few rows, so wide that not even a tile's are within the bounds
        suitable = heights = [next(d for d in divisors(chunk_rows) if fits_tiles(d))]
    default = max([d for d in suitable if d * kernel.hidden <= DEFAULT_SCRATCH_BYTES], default=suitable[0])
    tiles1, tiles2 = (
        good_tiles(rows, channels, used, MAX_COST)
        for rows, channels, used in ((wide, kernel.hidden, widening), (narrow, kernel.co, products))
    )

    def fits(d: Decisions) -> bool:
        one, two = Tile(d["rows1"], d["quads1"]), Tile(d["rows2"], d["quads2"])
        whole = d["tile_rows"] % one.rows == 0 and d["tile_rows"] % two.rows == 0
        return whole and one in tiles1 and two in tiles2

    def build(d: Decisions) -> tirx.PrimFunc:
        plan1 = choose_plan(wide, kernel.hidden, widening, Tile(d["rows1"], d["quads1"]))
        plan2 = choose_plan(narrow, kernel.co, products, Tile(d["rows2"], d["quads2"]))
        return _build(kernel, func, d["tile_rows"], plan1, plan2)

    knobs = (
        Knob("tile_rows", tuple(heights), default),
        *_sides("1", tiles1, first),
        *_sides("2", tiles2, second),
    )
    return Space(family, build, knobs, fits)


def _sides(suffix: str, tiles: list[Tile], default: Tile) -> tuple[Knob, Knob]:
    rows, quads = sorted({tile.rows for tile in tiles}), sorted({tile.quads for tile in tiles})
    return Knob(f"rows{suffix}", tuple(rows), default.rows), Knob(f"quads{suffix}", tuple(quads), default.quads)


def _build(kernel: InvertedBottleneck, func: tirx.PrimFunc, tile_rows: int, plan1: Plan, plan2: Plan) -> tirx.PrimFunc:
    blocks = kernel.t // tile_rows
    chunks = largest_divisor(blocks, CHUNKS)

    def emitters(base: Expr) -> tuple[ProductEmitter, ProductEmitter]:
        """The products of the rows from `base`; hidden rows are counted from 0."""
        of_x, of_hidden = _start(base, plan1), _start(tirx.IntImm("int32", 0), plan1)
        from_hidden, of_y = _start(tirx.IntImm("int32", 0), plan2), _start(base, plan2)

        def hidden_out(tile: Expr, row: int, channel: Expr) -> Indices:
            return (of_hidden(tile, row) * kernel.hidden + channel,)

        def hidden_in(tile: Expr, row: int, _: Expr | int) -> Indices:
            return (from_hidden(tile, row) * kernel.hidden,)

        widen = ProductEmitter(plan1, "lut", lambda tile, row, _: (of_x(tile, row), 0), hidden_out)
        narrow = ProductEmitter(
            plan2, kernel.epilogue, hidden_in, lambda tile, row, channel: (of_y(tile, row), channel)
        )
        return widen, narrow

    def body(**b: tirx.Buffer) -> None:
        zero = tirx.IntImm("int32", 0)
        size = tile_rows * kernel.hidden
        with loop(chunks, "chunk", parallel=True) as chunk:
            hidden = T.alloc_buffer((size,), "int8")
            with loop(blocks // chunks, "block") as block:
                widen, narrow = emitters((chunk * (blocks // chunks) + block) * tile_rows)
                widen.emit_tiles({**b, **_numbered(b, "1"), "y": hidden}, zero, tile_rows // plan1.tile.rows)
                ep.emit_translation(hidden, zero, hidden, zero, b["lut"], size)
                narrow.emit_tiles({**b, **_numbered(b, "2"), "x": hidden}, zero, tile_rows // plan2.tile.rows)

    shapes, packings = {}, []
    for argument, product in zip((W1, W2), emitters(tirx.IntImm("int32", 0)), strict=True):
        shapes[argument] = product.weights_shape
        packings.append(product.products.packing(argument))
    return build_function(func, body, packings, shapes)


def _start(base: Expr, plan: Plan) -> Callable[[Expr, int], Expr]:
    return lambda tile, row: base + tile * plan.tile.rows + row


def _numbered(b: dict[str, tirx.Buffer], number: str) -> dict[str, tirx.Buffer]:
    """The arguments of one of the products under the names that a product knows."""
    return {name: b[name + number] for name in ("w", "bias", "mult", "qp")}
