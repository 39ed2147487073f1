"""Matrix products by vpdpbusd: a tile of rows x vectors of int32 sums stays in registers over the whole reduction.

Wide inputs (int16) go two at a time, by vpdpwssd, and meet weights that are stored as int16.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from ...intrinsics import x86
from ...kernels import Conv2d, Dense
from ...kernels.base import TensorType
from ...kernels.packing import BiasOfUnsigned, PackedDots, PackedWideDots, Packing, PaddedChannels, round_up
from ..space import Decisions, Knob, Space
from ..vector_unit import divisors, largest_divisor
from .emit import LANES, Expr, Register, bind, build_function, load
from .epilogue import MAX_VECTORS, Epilogue

GROUP = 4
"""Products that one instruction adds into each sum."""
WIDE_GROUP = 2
"""The same of wide inputs."""
HALF = LANES // 2
REGISTERS = 28
"""Sums that fit beside a vector of weights and a broadcast input."""
REGISTERS_BESIDE_TABLE = 20
"""Sums and weights where the epilogue's table takes four, its constants some more, and its temporaries the rest."""
MIN_PARALLEL = 8
MAX_ROWS = 14
MAX_GROUP = 16


@dataclasses.dataclass(frozen=True)
class Tile:
    """rows x vectors sums of LANES channels in registers; `group` tiles of rows reuse a panel of weights in L1."""

    rows: int
    vectors: int
    group: int


def choose_tile(rows: int, vectors: int, images: int = 1, steps: int = 64, epilogue: str = "none") -> Tile:
    """Return the tile of least cost whose rows divide `rows`.

    images: how many times `rows` rows there are; steps: instructions of the whole reduction for one vector.
    """
    best: tuple[float, Tile] | None = None
    registers = REGISTERS_BESIDE_TABLE if epilogue == "lut" else REGISTERS
    for r in (d for d in divisors(rows) if d <= MAX_ROWS):
        for v in (v for v in range(1, min(MAX_VECTORS, vectors) + 1) if v == 1 or r * v + v <= registers):
            cost = tile_cost(r, v, vectors, steps)
            tiles = images * rows // r
            group = largest_divisor(tiles, max(1, min(8, tiles // MIN_PARALLEL)))
            if best is None or cost / r < best[0]:
                best = (cost / r, Tile(r, v, group))
    assert best is not None
    return best[1]


def tile_cost(rows: int, width: int, vectors: int, steps: int) -> float:
    """Return the cost of `rows` rows and all `vectors`, `width` of them at a time, in cycles, roughly."""
    full, rest = divmod(vectors, width)
    panels = [(full, width), (1, rest)] if rest else [(full, width)]
    # A step: the products, and the loads that they do not hide. Then per row of a panel conversions, packing, stores.
    stores = {1: 1, 2: 1, 3: 4, 4: 1}
    return sum(n * (steps * (rows * v + 0.2 * (rows + v) + 1) + rows * (2.5 * v + 7 + stores[v])) for n, v in panels)


def choose_dense_tile(kernel: Dense) -> Tile:
    """Return the hand-picked tile of a dense kernel."""
    return choose_tile(kernel.t, vectors_of(kernel.co), 1, steps_of(kernel.ci, group_of(kernel)), kernel.epilogue)


def choose_conv2d_tile(kernel: Conv2d) -> Tile:
    """Return the hand-picked tile of a convolution, whose rows are those of one image row."""
    oh, ow = kernel.out_hw
    steps = kernel.kh * steps_of(kernel.kw * kernel.ci, group_of(kernel))
    return choose_tile(ow, vectors_of(kernel.co), kernel.n * oh, steps, kernel.epilogue)


def group_of(kernel: Dense | Conv2d) -> int:
    """Return how many products one instruction adds into each sum of a kernel."""
    return WIDE_GROUP if kernel.multiplies_wide else GROUP


def steps_of(segment: int, group: int = GROUP) -> int:
    """Return how many steps the reduction over `segment` contiguous inputs takes."""
    return round_up(segment, group) // group


def dense_space(kernel: Dense, func: tirx.PrimFunc) -> Space:
    """Return the space of a dense kernel."""
    default = choose_dense_tile(kernel)
    return _space("x86_vnni.dense", kernel.t, kernel.co, 1, default, lambda tile: build_dense(kernel, func, tile))


def conv2d_space(kernel: Conv2d, func: tirx.PrimFunc) -> Space:
    """Return the space of a convolution without padding."""
    oh, ow = kernel.out_hw
    default = choose_conv2d_tile(kernel)
    build = partial(build_conv2d, kernel, func)
    return _space("x86_vnni.conv2d", ow, kernel.co, kernel.n * oh, default, build)


def _space(
    family: str, rows: int, channels: int, images: int, default: Tile, build: Callable[[Tile], tirx.PrimFunc]
) -> Space:
    vectors = vectors_of(channels)
    row_choices = tuple(d for d in divisors(rows) if d <= MAX_ROWS)
    vector_choices = tuple(range(1, min(MAX_VECTORS, vectors) + 1))
    groups = tuple(d for d in divisors(images * rows) if d <= MAX_GROUP)

    def fits(d: Decisions) -> bool:
        tiles = images * rows // d["rows"]
        return d["rows"] * d["vectors"] <= REGISTERS and tiles % d["group"] == 0

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


@dataclasses.dataclass(frozen=True)
class Operands:
    """The packed arguments of one product: w [vectors, segments, steps, 16, group], bias [16 vectors].

    `segment` inputs are contiguous; segment s of row r begins at `start(row, s)`, indices of x. is_unsigned: x holds
    bytes that are 128 more, and whole steps of them.
    """

    x: tirx.Buffer
    w: tirx.Buffer
    bias: tirx.Buffer
    segment: int
    start: Callable[[Expr, Expr | int], list[Expr | int]]
    is_unsigned: bool = False

    @property
    def group(self) -> int:
        """Inputs that one instruction takes."""
        return int(self.w.shape[-1])

    @property
    def is_wide(self) -> bool:
        """Whether x and w are int16."""
        return str(self.x.dtype) == "int16"


def build_dense(kernel: Dense, func: tirx.PrimFunc, tile: Tile | None = None) -> tirx.PrimFunc:
    """Return `func` with weights packed for vpdpbusd; inputs become x + 128 on the way, the bias makes up for it.

    A wide input is taken as it is.
    """
    tile = tile or choose_dense_tile(kernel)

    def body(*buffers: tirx.Buffer) -> None:
        x, w, bias, mult, qp, *extra, y = buffers
        operands = Operands(x, w, bias, kernel.ci, lambda row, segment: [row, 0])
        epilogue = Epilogue(kernel.epilogue, mult, qp, extra, y)
        emit_product(kernel.t, kernel.co, tile, operands, epilogue, lambda row: [row])

    return build_function(kernel, func, body, packed_weights(kernel.co, 1, kernel.ci, is_wide=kernel.multiplies_wide))


def build_conv2d(kernel: Conv2d, func: tirx.PrimFunc, tile: Tile | None = None) -> tirx.PrimFunc:
    """Return `func`, a convolution without padding, as a product whose rows are patches, KH segments of KW * CI."""
    oh, ow = kernel.out_hw
    segment = kernel.kw * kernel.ci
    tile = tile or choose_conv2d_tile(kernel)

    def pixel(row: Expr) -> list[Expr]:
        return [tirx.floordiv(row, oh * ow), tirx.floormod(tirx.floordiv(row, ow), oh), tirx.floormod(row, ow)]

    def body(*buffers: tirx.Buffer) -> None:
        x, w, bias, mult, qp, *extra, y = buffers

        def start(row: Expr, s: Expr | int) -> list[Expr | int]:
            n, i, j = pixel(row)
            return [n, i * kernel.stride_h + s, j * kernel.stride_w, 0]

        operands = Operands(x, w, bias, segment, start)
        rows = kernel.n * oh * ow
        emit_product(rows, kernel.co, tile, operands, Epilogue(kernel.epilogue, mult, qp, extra, y), pixel)

    packed = packed_weights(kernel.co, kernel.kh, segment, is_wide=kernel.multiplies_wide)
    return build_function(kernel, func, body, packed)


def vectors_of(channels: int) -> int:
    """Return how many vectors of sums hold `channels`."""
    return round_up(channels, LANES) // LANES


def packed_weights(
    co: int, segments: int, segment: int, first: int = 1, is_wide: bool = False
) -> list[tuple[Packing, TensorType]]:
    """Return how w, bias and mult (three arguments from `first`) are packed, and their types."""
    vectors, group = vectors_of(co), WIDE_GROUP if is_wide else GROUP
    shape = (vectors, segments, steps_of(segment, group), LANES, group)
    w, bias, mult = range(first, first + 3)
    weights: tuple[Packing, TensorType] = (PackedDots(w, (w,), LANES, group, segment), (shape, "int8"))
    start: Packing = BiasOfUnsigned(bias, (bias, w), LANES)
    if is_wide:
        weights = (PackedWideDots(w, (w,), LANES, group, segment), (shape, "int16"))
        start = PaddedChannels(bias, (bias,), LANES)
    return [
        weights,
        (start, ((vectors * LANES,), "int32")),
        (PaddedChannels(mult, (mult,), LANES), ((vectors * LANES,), "float32")),
    ]


def emit_product(
    rows: int,
    channels: int,
    tile: Tile,
    operands: Operands,
    epilogue: Epilogue,
    position: Callable[[Expr], list[Expr]],
) -> None:
    """Emit the product of `rows` x `channels`; `position` gives the indices of a row of y.

    Chunks of tile.group tiles of rows run in parallel (panels of channels where there is one chunk); within a chunk
    panel by panel, so that a panel's weights stay in the first-level cache.
    """
    chunk_rows = tile.rows * tile.group
    chunks = rows // chunk_rows
    if chunks == 1 and channels % (LANES * tile.vectors) == 0:
        emit_panels(0, channels, tile, operands, epilogue, position, T.parallel)
    else:
        with T.parallel(chunks) as chunk:
            emit_panels(chunk * chunk_rows, channels, tile, operands, epilogue, position)


def emit_panels(
    first_row: Expr | int,
    channels: int,
    tile: Tile,
    operands: Operands,
    epilogue: Epilogue,
    position: Callable[[Expr], list[Expr]],
    loop: Callable[[int], Any] = T.serial,
) -> None:
    """Emit all channels of tile.group tiles of rows from `first_row`, panel by panel in a `loop`."""

    def panel(vector: Expr | int, count: int) -> None:
        with T.serial(tile.group) as group:
            row = bind("row", first_row + group * tile.rows)
            sums = accumulate(row, vector, tile.rows, lanes_of(count, operands), operands)
            channel = vector * LANES
            for r in range(tile.rows):
                totals = [x86.widen(s.get(), s.lanes, LANES) for s in sums[r]]
                epilogue.emit(totals, [*position(row + r), channel], channel, count)

    whole = channels // (LANES * tile.vectors)
    if whole:
        with loop(whole) as p:
            panel(p * tile.vectors, LANES * tile.vectors)
    if rest := channels - whole * LANES * tile.vectors:
        panel(whole * tile.vectors, rest)


def lanes_of(channels: int, operands: Operands) -> list[int]:
    """Return the width of each vector of sums of `channels`: where eight lanes do for the last one, it may be half."""
    lanes = [LANES] * vectors_of(channels)
    # Beside more vectors, and where inputs are flipped one by one, LLVM runs out of registers and spills sums.
    may_be_half = not operands.is_wide and (operands.is_unsigned or len(lanes) <= 2)
    if 0 < channels % LANES <= HALF and may_be_half:
        lanes[-1] = HALF
    return lanes


def accumulate(
    row: Expr, vector: Expr | int, rows: int, lanes: Sequence[int], operands: Operands
) -> list[list[Register]]:
    """Emit the sums of `rows` rows from `row` and of channels from `vector`, in vectors of `lanes`; [rows][vectors]."""
    _, segments, steps, _, group = (int(extent) for extent in operands.w.shape)
    sums = [[Register(f"sum_{r}_{v}", lanes=count) for v, count in enumerate(lanes)] for r in range(rows)]
    for v, count in enumerate(lanes):
        start = bind("start", load(operands.bias, [(vector + v) * LANES], count))
        for r in range(rows):
            sums[r][v].set(start)

    def step(segment: Expr | int, k: Expr | int, count: int) -> None:
        weights = [bind("weights", load_dots(operands.w, [vector + v, segment, k], n)) for v, n in enumerate(lanes)]
        for r in range(rows):
            *outer, first = operands.start(row + r, segment)
            position = [*outer, first + k * group]
            word = whole_group(operands.x, position, count, group)
            if not operands.is_unsigned and not operands.is_wide:
                word = bind("word", x86.flip(word))
            inputs = {n: bind("inputs", x86.splat(word, "int32", n)) for n in sorted(set(lanes))}
            for v, n in enumerate(lanes):
                sums[r][v].set(products_added(operands, n)(sums[r][v].get(), inputs[n], weights[v]))

    def segment_steps(segment: Expr | int) -> None:
        whole, rest = (steps, 0) if operands.is_unsigned else divmod(operands.segment, group)
        if whole:
            with T.serial(whole) as k:
                step(segment, k, group)
        if rest:
            step(segment, steps - 1, rest)

    if segments == 1:
        segment_steps(0)
    else:
        with T.serial(segments) as segment:
            segment_steps(segment)
    return sums


def products_added(operands: Operands, lanes: int) -> Callable[[Expr, Expr, Expr], Expr]:
    """Return the instruction on (sums, inputs, weights) of `lanes` sums."""
    if operands.is_wide:
        return x86.dot_int16
    return x86.dot_unsigned_signed if lanes == LANES else x86.dot_unsigned_signed_half


def load_dots(w: tirx.Buffer, indices: Sequence[Expr | int], lanes: int) -> Expr:
    """Return the weights of one step, [lanes channels, group]."""
    return load(w, [*indices, 0, 0], int(w.shape[-1]) * lanes)


def whole_group(x: tirx.Buffer, indices: list[Expr | int], count: int, group: int) -> Expr:
    """Return `group` inputs as the parts of an int32; those beyond `count` are 0, and not read."""
    if count == group:
        return tirx.reinterpret("int32", load(x, indices, group))
    *outer, first = indices
    bits = 32 // group
    word = tirx.const(0, "int32")
    for i in range(count):
        word = word | ((x[(*outer, first + i)].astype("int32") & ((1 << bits) - 1)) << (bits * i))
    return word
