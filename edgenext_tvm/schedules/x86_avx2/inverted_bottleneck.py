"""The inverted bottleneck: a tile of rows is widened, looked up and narrowed before the next; hidden values stay in L1.

They are stored as the second product reads them, so nothing is widened twice.
"""

from __future__ import annotations

import dataclasses

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from ...kernels import InvertedBottleneck
from ..space import Decisions, Knob, Space
from ..vector_unit import divisors, largest_divisor
from ..x86.emit import bind, build_function
from .epilogue import Epilogue
from .left_operand import Source, expand_rows, rows_in_arena
from .matmul import MAX_ROWS, MAX_VECTORS, MIN_PARALLEL, Weights, emit_panels, tile_cost
from .products import Products, vectors_of

MAX_CHUNKS = 32
"""Parallel iterations: each has its own hidden rows in the arena."""
NARROW_ARGUMENT = 6
"""Of the second product's weights."""


@dataclasses.dataclass(frozen=True)
class BottleneckTile:
    """rows at a time, `widen` and `narrow` registers of sums a row in each product; `chunks` parallel iterations."""

    rows: int
    widen: int
    narrow: int
    chunks: int


def choose_bottleneck_tile(kernel: InvertedBottleneck, products: Products) -> BottleneckTile:
    """Return the tile whose two products cost least together."""
    chunks = largest_divisor(kernel.t, MIN_PARALLEL)
    hidden, out = vectors_of(kernel.hidden), vectors_of(kernel.co)
    best: tuple[float, BottleneckTile] | None = None
    for rows in (d for d in divisors(kernel.t // chunks) if d <= min(MAX_ROWS, products.sums)):
        widths = range(1, min(MAX_VECTORS, products.sums // rows) + 1)
        widen, widen_cost = _cheapest(rows, widths, hidden, products)
        narrow, narrow_cost = _cheapest(rows, widths, out, products)
        cost = kernel.ci * widen_cost + kernel.hidden * narrow_cost
        if best is None or cost < best[0]:
            best = (cost, BottleneckTile(rows, widen, narrow, chunks))
    assert best is not None
    return best[1]


def _cheapest(rows: int, widths: range, vectors: int, products: Products) -> tuple[int, float]:
    costs = {width: tile_cost(rows, width, vectors, products) for width in widths if width <= vectors}
    width = min(costs, key=lambda width: costs[width])
    return width, costs[width]


def inverted_bottleneck_space(kernel: InvertedBottleneck, func: tirx.PrimFunc, products: Products) -> Space:
    """Return the space: how many rows are fused, and the tiles of both products."""
    default = choose_bottleneck_tile(kernel, products)

    def fits(d: Decisions) -> bool:
        most = d["rows"] * max(d["widen"], d["narrow"])
        return most <= products.sums and kernel.t % (d["rows"] * d["chunks"]) == 0

    def knob(name: str, values: tuple[int, ...]) -> Knob:
        return Knob(name, values, getattr(default, name))

    return Space(
        f"{products.family}.inverted_bottleneck",
        lambda d: build_inverted_bottleneck(kernel, func, products, BottleneckTile(**d)),
        (
            knob("rows", tuple(d for d in divisors(kernel.t) if d <= MAX_ROWS)),
            knob("widen", tuple(range(1, min(MAX_VECTORS, vectors_of(kernel.hidden)) + 1))),
            knob("narrow", tuple(range(1, min(MAX_VECTORS, vectors_of(kernel.co)) + 1))),
            knob("chunks", tuple(d for d in divisors(kernel.t) if d <= MAX_CHUNKS)),
        ),
        fits,
    )


def build_inverted_bottleneck(
    kernel: InvertedBottleneck, func: tirx.PrimFunc, products: Products, tile: BottleneckTile
) -> tirx.PrimFunc:
    """Return `func` with both products' weights packed."""

    def body(*buffers: tirx.Buffer) -> None:
        x, w1, bias1, mult1, qp1, lut, w2, bias2, mult2, qp2, *extra, y = buffers
        source = Source(x, 1, kernel.ci, lambda row, segment: [row, 0])
        widen = Epilogue("lut", mult1, qp1, [lut], None, products.widened)
        narrow = Epilogue(kernel.epilogue, mult2, qp2, extra, y)
        group = kernel.t // (tile.chunks * tile.rows)
        with T.parallel(tile.chunks) as chunk:
            widen.prepare()
            hidden = rows_in_arena(products, tile.rows, kernel.hidden)
            hidden.clear_rest()
            widen.y = hidden.rows[0][0].buffer
            with T.serial(group) as number:
                first = bind("row", (chunk * group + number) * tile.rows)
                numbers = [first + r for r in range(tile.rows)]
                wide = expand_rows(products, source, numbers)
                first_weights = Weights(products, w1, bias1, kernel.hidden)
                emit_panels(tile.widen, wide, first_weights, widen, [[r] for r in range(tile.rows)])
                second_weights = Weights(products, w2, bias2, kernel.co)
                emit_panels(tile.narrow, hidden, second_weights, narrow, [[row] for row in numbers])

    packed = products.packed(kernel.ci, kernel.hidden) + products.packed(kernel.hidden, kernel.co, NARROW_ARGUMENT)
    return build_function(kernel, func, body, packed)
