"""Matrix products: a tile of rows x vectors of int32 sums stays in registers over the whole reduction."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from ...kernels import Conv2d, Dense
from ..space import Decisions, Knob, Space
from ..vector_unit import divisors, largest_divisor
from ..x86.emit import Expr, Register, bind, build_function, load
from .epilogue import LANES, Epilogue, Sums
from .left_operand import Source, WideRows, expand_rows
from .products import Products, vectors_of

MIN_PARALLEL = 8
MAX_ROWS = 12
MAX_VECTORS = 4
MAX_GROUP = 16


@dataclasses.dataclass(frozen=True)
class Tile:
    """rows x vectors sums of LANES channels in registers; `group` tiles of rows are one parallel iteration."""

    rows: int
    vectors: int
    group: int


def choose_tile(rows: int, vectors: int, products: Products, images: int = 1) -> Tile:
    """Return the tile of least cost whose rows divide `rows`: per step rows broadcasts and vectors weight loads.

    images: how many times `rows` rows there are.
    """
    best: tuple[float, Tile] | None = None
    for r in (d for d in divisors(rows) if d <= MAX_ROWS):
        for v in range(1, min(MAX_VECTORS, vectors, products.sums // r) + 1):
            cost = tile_cost(r, v, vectors, products)
            tiles = images * rows // r
            group = largest_divisor(tiles, max(1, min(MAX_GROUP, tiles // MIN_PARALLEL)))
            if best is None or cost < best[0]:
                best = (cost, Tile(r, v, group))
    assert best is not None
    return best[1]


def tile_cost(rows: int, width: int, vectors: int, products: Products) -> float:
    """Return instructions per row and step of all channels: products, broadcasts, weights and the loop."""
    whole, rest = divmod(vectors, width)
    panels = [width] * whole + [rest] * bool(rest)
    return sum(products.cost * rows * w + 0.5 * rows + w + 1 for w in panels) / rows


def dense_space(kernel: Dense, func: tirx.PrimFunc, products: Products) -> Space:
    """Return the space of a dense kernel."""
    build = partial(build_dense, kernel, func, products)
    return tile_space(f"{products.family}.dense", kernel.t, kernel.co, products, build)


def conv2d_space(kernel: Conv2d, func: tirx.PrimFunc, products: Products) -> Space:
    """Return the space of a convolution without padding."""
    oh, ow = kernel.out_hw
    build = partial(build_conv2d, kernel, func, products)
    return tile_space(f"{products.family}.conv2d", ow, kernel.co, products, build, kernel.n * oh)


def tile_space(
    family: str,
    rows: int,
    channels: int,
    products: Products,
    build: Callable[[Tile], tirx.PrimFunc],
    images: int = 1,
) -> Space:
    """Return the space of one product of `images` times `rows` rows."""
    vectors = vectors_of(channels)
    default = choose_tile(rows, vectors, products, images)
    row_choices = tuple(d for d in divisors(rows) if d <= MAX_ROWS)
    vector_choices = tuple(range(1, min(MAX_VECTORS, vectors) + 1))
    groups = tuple(d for d in divisors(images * rows) if d <= MAX_GROUP)

    def fits(d: Decisions) -> bool:
        return d["rows"] * d["vectors"] <= products.sums and images * rows // d["rows"] % d["group"] == 0

    return Space(
        family,
        lambda d: build(Tile(d["rows"], d["vectors"], d["group"])),
        (
            Knob("rows", row_choices, default.rows),
            Knob("vectors", vector_choices, default.vectors),
            Knob("group", groups, default.group),
        ),
        fits,
    )


def build_dense(kernel: Dense, func: tirx.PrimFunc, products: Products, tile: Tile) -> tirx.PrimFunc:
    """Return `func` with its weights packed and its rows widened on the way."""

    def body(*buffers: tirx.Buffer) -> None:
        x, w, bias, mult, qp, *extra, y = buffers
        source = Source(x, 1, kernel.ci, lambda row, segment: [row, 0])
        epilogue = Epilogue(kernel.epilogue, mult, qp, extra, y)
        emit_product(kernel.t, tile, source, Weights(products, w, bias, kernel.co), epilogue, lambda row: [row])

    return build_function(kernel, func, body, products.packed(kernel.ci, kernel.co))


def build_conv2d(kernel: Conv2d, func: tirx.PrimFunc, products: Products, tile: Tile) -> tirx.PrimFunc:
    """Return `func`, a convolution without padding, as a product whose rows are patches, KH segments of KW * CI."""
    oh, ow = kernel.out_hw

    def pixel(row: Expr) -> list[Expr]:
        return [tirx.floordiv(row, oh * ow), tirx.floormod(tirx.floordiv(row, ow), oh), tirx.floormod(row, ow)]

    def start(row: Expr, segment: Expr | int) -> list[Expr | int]:
        n, i, j = pixel(row)
        return [n, i * kernel.stride_h + segment, j * kernel.stride_w, 0]

    def body(*buffers: tirx.Buffer) -> None:
        x, w, bias, mult, qp, *extra, y = buffers
        source = Source(x, kernel.kh, kernel.kw * kernel.ci, start)
        epilogue = Epilogue(kernel.epilogue, mult, qp, extra, y)
        emit_product(kernel.n * oh * ow, tile, source, Weights(products, w, bias, kernel.co), epilogue, pixel)

    return build_function(kernel, func, body, products.packed(kernel.kh * kernel.kw * kernel.ci, kernel.co))


@dataclasses.dataclass(frozen=True)
class Weights:
    """The right operand, packed (see Products.packed), and what its sums start from."""

    products: Products
    w: tirx.Buffer
    bias: tirx.Buffer
    channels: int

    def start(self, vector: Expr | int) -> Expr:
        """Return int32x8: what eight sums start from."""
        return load(self.bias, [vector * LANES], LANES)

    def step(self, vector: Expr | int, step: Expr) -> Expr:
        """Return the weights of one step for eight sums."""
        return self.products.load_weights(self.w, [vector, 0, step])


class RightOperand(Protocol):
    """What `accumulate` reads: see Weights."""

    def start(self, vector: Any) -> Expr:
        """Return int32x8."""

    def step(self, vector: Any, step: Expr) -> Expr:
        """Return what `Products.dot` takes as weights."""


def emit_product(
    rows: int,
    tile: Tile,
    source: Source,
    weights: Weights,
    epilogue: Epilogue,
    position: Callable[[Expr], list[Expr]],
) -> None:
    """Emit the product of `rows` rows of `source` and `weights`; `position` gives the indices of a row of y.

    Chunks of tile.group tiles of rows run in parallel; every tile widens its rows once for all panels of channels.
    """
    with T.parallel(rows // (tile.rows * tile.group)) as chunk:
        epilogue.prepare()
        with T.serial(tile.group) as group:
            first = bind("row", (chunk * tile.group + group) * tile.rows)
            numbers = [first + r for r in range(tile.rows)]
            wide = expand_rows(weights.products, source, numbers)
            emit_panels(tile.vectors, wide, weights, epilogue, [position(row) for row in numbers])


def emit_panels(
    vectors: int, wide: WideRows, weights: Weights, epilogue: Epilogue, positions: Sequence[Sequence[Expr | int]]
) -> None:
    """Emit all channels of `wide`, `vectors` registers of them at a time; positions: of the rows in y."""

    def panel(vector: Expr | int, width: int, count: int) -> None:
        sums = accumulate(vector, width, wide, weights)
        first = vector * LANES

        def describe(register: Register, position: Sequence[Expr | int], v: int) -> Sums:
            channel = first + LANES * v
            return Sums(register.get(), (*position, channel), channel, min(LANES, count - LANES * v))

        epilogue.emit(
            [
                [describe(register, position, v) for v, register in enumerate(row)]
                for row, position in zip(sums, positions, strict=True)
            ]
        )

    whole = weights.channels // (LANES * vectors)
    if whole:
        with T.serial(whole) as p:
            panel(p * vectors, vectors, LANES * vectors)
    if rest := weights.channels - whole * LANES * vectors:
        panel(whole * vectors, vectors_of(rest), rest)


def accumulate(vector: Expr | int, width: int, wide: WideRows, weights: RightOperand) -> list[list[Register]]:
    """Emit the sums of all rows of `wide` and `width` vectors of channels from `vector`; [rows][width]."""
    products, rows = wide.products, len(wide.rows)
    sums = [[Register(f"sum_{r}_{v}", lanes=LANES) for v in range(width)] for r in range(rows)]
    for v in range(width):
        start = bind("start", weights.start(vector + v))
        for r in range(rows):
            sums[r][v].set(start)
    done = 0
    for part, steps in enumerate(part.steps for part in wide.rows[0]):
        with T.serial(steps) as k:
            loaded = [bind("weights", weights.step(vector + v, done + k)) for v in range(width)]
            for r in range(rows):
                word = bind("word", wide.word(r, part, k))
                for v in range(width):
                    sums[r][v].set(products.dot(sums[r][v].get(), word, loaded[v]))
        done += steps
    return sums
