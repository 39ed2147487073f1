"""How a product is computed: the choices of one, their hand-picked values, and which of them differ at all."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from tvm import tirx

from ..space import Decisions, Knob, Space
from ..vector_unit import divisors, largest_divisor
from . import epilogue as ep
from .left_operand import Rows
from .products import Products, Sdot, Smlal, SmlalQuads, Tile
from .wide_products import AnyProducts, WideSdot, WideSmlal

REGISTERS = 32
MAX_ROWS = 8
"""Rows of a tile; by default at most as many as the products' `max_rows`."""
MAX_GROUP = 8
MAX_SPILLED_SUMS = 24
"""Sums that a tile may be given by a decision: LLVM may have to spill some of them."""
MAX_COST: dict[type[AnyProducts], float] = {Sdot: 2.0, Smlal: 1.6, SmlalQuads: 1.6, WideSdot: 1.6, WideSmlal: 2.0}
"""Loads per product of a tile, over those of the best: tiles beyond it are no choice."""
UNROLL = (1, 2, 3, 6)
MAX_UNROLLED = 3
"""Steps of 16 products a sum that one iteration of the innermost loop does by default."""
MAX_UNROLLED_GROUPS = 6
"""The same in groups of eight products, for rows that were expanded first."""
MIN_PANELS = 3
"""Expanding rows first pays for that many panels of channels."""
MIN_PARALLEL = 8
STEP = 16


@dataclasses.dataclass(frozen=True)
class Plan:
    """One product: `group` tiles of rows a chunk.

    rows_first  a tile of rows meets all panels of channels before the next one; else a panel meets all tiles of rows
    expands     then rows are written to the stack as smlal wants them, once for all panels
    unroll      at most so many steps of the reduction are one iteration of the innermost loop
    peels       the first step sets the sums instead of adding to them (smlal); the bias is added last
    """

    rows: Rows
    channels: int
    products: type[AnyProducts]
    tile: Tile
    group: int
    rows_first: bool
    expands: bool
    unroll: int
    peels: bool

    @property
    def panels(self) -> int:
        """Tiles of channels."""
        return self.channels // (4 * self.tile.quads)

    @property
    def step(self) -> int:
        """Products a sum in one step of the reduction."""
        if issubclass(self.products, WideSmlal):
            return 8
        return STEP if self.rows.runs[1] >= 2 * STEP or issubclass(self.products, Smlal) else 8

    @property
    def unrolled(self) -> tuple[int, ...]:
        """Steps that each innermost loop takes at once: whole numbers of iterations, and no rest after the loop.

        A rest, like a loop of one iteration, would be scheduled by LLVM into the epilogue, which costs spills.
        """
        if self.expands:
            counts = [count - (part == 0 and self.peels) for part, (_, count) in enumerate(self.rows.parts)]
            return tuple(largest_divisor(count, self.unroll) for count in counts)
        steps = 0 if self.rows.gathered else self.rows.length // self.step - self.peels
        return (largest_divisor(steps, min(self.unroll, max(1, steps // 2))) if steps else 1,)


def products_for(features: frozenset[str]) -> type[Products]:
    """Return the best products of a core."""
    return Sdot if "dotprod" in features else Smlal


def wide_products_for(features: frozenset[str]) -> type[WideSdot] | type[WideSmlal]:
    """Return the best products of wide inputs of a core."""
    return WideSdot if "dotprod" in features else WideSmlal


def widening_products(rows: Rows, channels: int, products: type[Products]) -> type[Products]:
    """Return SmlalQuads in place of Smlal where few inputs meet many channels; with more inputs its loads cost more."""
    short = STEP <= rows.inputs < 2 * STEP and channels >= 4 * rows.inputs
    return SmlalQuads if products is Smlal and short else products


def can_expand(rows: Rows, products: type[AnyProducts], tile_rows: int) -> bool:
    """Whether rows may be expanded first."""
    return issubclass(products, Smlal) and rows.count > tile_rows and rows.joinable


def can_peel(plan: Plan) -> bool:
    """Whether the first step may set the sums: one run, and a step of its own."""
    single = plan.expands or (not plan.rows.gathered and plan.rows.segments == 1)
    return issubclass(plan.products, Smlal) and single and plan.rows.inputs >= STEP


def choose_tile(rows: Rows, channels: int, products: type[AnyProducts]) -> Tile:
    """Return the tile that loads least per product; its sides divide the rows of a line and the channels."""
    best = None
    for tile in _tiles(rows, channels, products, products.max_sums, products.max_rows):
        # Whole registers of int8 results decide between equals.
        uneven = tile.rows * tile.quads % ep.QUADS != 0, tile.quads % ep.QUADS != 0
        cost = (_loads(tile, rows, products), *uneven)
        if best is None or cost < best[0]:
            best = (cost, tile)
    assert best is not None
    return best[1]


def good_tiles(rows: Rows, channels: int, products: type[AnyProducts], max_cost: float | None = None) -> list[Tile]:
    """Return the tiles worth trying, which include the chosen one."""
    max_cost = max_cost or MAX_COST[products]
    least = _loads(choose_tile(rows, channels, products), rows, products)
    tiles = _tiles(rows, channels, products, MAX_SPILLED_SUMS)
    return [tile for tile in tiles if _loads(tile, rows, products) <= max_cost * least]


def choose_plan(rows: Rows, channels: int, products: type[AnyProducts], tile: Tile | None = None) -> Plan:
    """Return the hand-picked plan, or that of a given tile."""
    tile = tile or choose_tile(rows, channels, products)
    worthwhile = channels // (4 * tile.quads) >= MIN_PANELS
    expands = can_expand(rows, products, tile.rows) and (rows.gathered or worthwhile)
    # With more sums the loads of a second step would need registers that sums hold.
    few = tile.rows * tile.quads * products.sums_per_quad <= 16 and not issubclass(products, WideSmlal)
    unroll = MAX_UNROLLED if few else 1
    peels = False
    if expands:
        # The groups that are not peeled must still fit a loop well.
        others = rows.parts[0][1] - 1
        peels = others > 0 and largest_divisor(others, MAX_UNROLLED_GROUPS) >= min(3, others)
        groups = others if peels else others + 1
        unroll = MAX_UNROLLED_GROUPS if groups != 2 * MAX_UNROLLED_GROUPS else MAX_UNROLLED_GROUPS // 2
    plan = Plan(rows, channels, products, tile, 1, expands, expands, unroll, peels)
    tiles = rows.count // tile.rows
    group = largest_divisor(tiles, min(MAX_GROUP, max(1, tiles // MIN_PARALLEL)))
    return dataclasses.replace(plan, group=group, unroll=_least_unroll(plan))


def product_space(
    family: str, rows: Rows, channels: int, products: type[AnyProducts], build: Callable[[Plan], tirx.PrimFunc]
) -> Space:
    """Return the space of one product.

    rows, quads  sides of the tile
    group        tiles of rows a chunk of the parallel loop
    rows_first   1: a tile of rows meets all panels of channels before the next one
    expand       1: rows are expanded first (without dotprod)
    unroll       steps of the reduction an iteration of the innermost loop
    peel         1: the first step sets the sums (without dotprod)
    """
    default = choose_plan(rows, channels, products)
    tiles = good_tiles(rows, channels, products)

    def plan(d: Decisions) -> Plan:
        tile = Tile(d["rows"], d["quads"])
        order = bool(d["rows_first"]), bool(d["expand"])
        return Plan(rows, channels, products, tile, d["group"], *order, d["unroll"], bool(d["peel"]))

    def fits(d: Decisions) -> bool:
        chosen = plan(d)
        if chosen.tile not in tiles or rows.count // chosen.tile.rows % chosen.group:
            return False
        if chosen.expands and not (chosen.rows_first and can_expand(rows, products, chosen.tile.rows)):
            return False
        if chosen.rows_first and not chosen.expands and (chosen.group == 1 or chosen.panels == 1):
            return False  # the same code as without
        if chosen.peels and not can_peel(chosen):
            return False
        return chosen.unroll == _least_unroll(chosen)

    groups = [g for g in divisors(rows.count) if g <= MAX_GROUP]
    expandable = any(can_expand(rows, products, tile.rows) for tile in tiles)
    knobs = (
        Knob("rows", tuple(sorted({t.rows for t in tiles})), default.tile.rows),
        Knob("quads", tuple(sorted({t.quads for t in tiles})), default.tile.quads),
        Knob("group", tuple(groups), default.group),
        Knob("rows_first", (0, 1), int(default.rows_first)),
        Knob("expand", (0, 1) if expandable else (0,), int(default.expands)),
        Knob("unroll", UNROLL, default.unroll),
        Knob("peel", (0, 1) if issubclass(products, Smlal) else (0,), int(default.peels)),
    )
    return Space(family, lambda d: build(plan(d)), knobs, fits)


def _least_unroll(plan: Plan) -> int:
    """The least value that gives the same code."""
    same = [u for u in UNROLL if dataclasses.replace(plan, unroll=u).unrolled == plan.unrolled]
    return min(same)


def _loads(tile: Tile, rows: Rows, products: type[AnyProducts]) -> float:
    return products.loads(tile.rows, tile.quads, rows.joinable) / (tile.rows * tile.quads)


def _tiles(
    rows: Rows, channels: int, products: type[AnyProducts], max_sums: int, max_rows: int = MAX_ROWS
) -> list[Tile]:
    """Tiles whose sums fit, in the order in which equals are preferred."""
    return [
        Tile(r, quads)
        for quads in divisors(channels // 4)
        for r in (d for d in divisors(rows.tile_of) if d <= max_rows)
        if r * quads * products.sums_per_quad <= max_sums and r * products.inputs_per_row * (quads + 1) + 2 <= REGISTERS
    ]
