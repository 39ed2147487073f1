"""dense and conv2d on AArch64: register tiles of rows x channels over packed weights, the epilogue on the tile.

With dotprod, sdot adds 16 products an instruction. Without, smull and smlal add two products of int8 into int16, which
fits: weights are in [-127, 127], and 2 * 127 * 128 < 2^15; sadalp adds the int16 sums in pairs to int32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvm import tirx
from tvm.tirx import Expr

from ...intrinsics import arm_neon as neon
from ...kernels import Conv2d, Dense
from ...kernels.packing import PackedDots, Packing
from ...kernels.window import needs_padding
from ..vector_unit import divisors, largest_divisor
from . import epilogue as ep
from .function import Registers, bind, build_function, loop, store_vector
from .packing import PackedPairs

REGISTERS = 32
MAX_ROWS = 8
MAX_UNROLLED = 3
"""Steps of 16 products a sum that one iteration of the innermost loop does."""
MAX_GATHERED = 64
"""Bytes of a window that may be gathered from rows that are not whole vectors."""
MIN_PARALLEL = 8
STEP = 16


@dataclass(frozen=True)
class Rows:
    """Where the products' left operand lies: each row is `segments` runs of `length` bytes, contiguous in memory.

    gathered: the runs are too short for vectors and are joined in registers, four bytes at a time.
    """

    count: int
    segments: int
    length: int
    tile_of: int
    gathered: bool = False

    @property
    def runs(self) -> tuple[int, int]:
        """(segments, length) as the products see them."""
        return (1, self.segments * self.length) if self.gathered else (self.segments, self.length)


def rows_of(kernel: Dense | Conv2d) -> Rows | None:
    """Return the left operand of a kernel, or None if its runs do not suit vectors of four bytes."""
    if isinstance(kernel, Dense):
        return Rows(kernel.t, 1, kernel.ci, kernel.t) if kernel.ci % 4 == 0 else None
    length = kernel.kw * kernel.ci
    if needs_padding(kernel) or length % 4:
        return None
    oh, ow = kernel.out_hw
    gathered = length % 8 != 0 and kernel.kh * length <= MAX_GATHERED
    return Rows(kernel.n * oh * ow, kernel.kh, length, ow, gathered)


@dataclass(frozen=True)
class Tile:
    """rows x (4 * quads) int32 sums."""

    rows: int
    quads: int


def choose_tile(rows: Rows, channels: int, products: type[_Sdot] | type[_Smlal]) -> Tile:
    """Return the tile that loads least per product; its sides divide the rows of a line and the channels."""
    best = None
    for quads in divisors(channels // 4):
        for r in (d for d in divisors(rows.tile_of) if d <= MAX_ROWS):
            if r * quads * products.sums_per_quad > products.max_sums or r * (quads + 1) + 2 > REGISTERS:
                continue
            # Whole registers of int8 results decide between equals.
            cost = (products.loads(r, quads) / (r * quads), r * quads % ep.QUADS != 0, quads % ep.QUADS != 0)
            if best is None or cost < best[0]:
                best = (cost, Tile(r, quads))
    assert best is not None
    return best[1]


def build_matmul(kernel: Dense | Conv2d, func: tirx.PrimFunc, features: frozenset[str]) -> tirx.PrimFunc | None:
    """Return the kernel's function, or None where its shape does not suit: channels or runs that are no quads."""
    rows = rows_of(kernel)
    if rows is None or kernel.co % 4:
        return None
    products = _Sdot if "dotprod" in features else _Smlal
    tile = choose_tile(rows, kernel.co, products)
    return _Matmul(kernel, rows, tile, products).build(func)


class _Sdot:
    """Products by sdot: one register of sums per quad of channels."""

    sums_per_quad = 1
    max_sums = 24  # of 32 registers: the others hold inputs and weights

    @staticmethod
    def loads(rows: int, quads: int) -> float:
        """Instructions that bring operands for 16 products a sum: a load a row, paired loads of weights."""
        return rows + 2 * quads

    def __init__(self, tile: Tile, rows: Rows) -> None:
        self.tile = tile
        segments, length = rows.runs
        self.shape = (segments, -(-length // 4), 4 * tile.quads, 4)
        self.segment = length

    def packing(self) -> Packing:
        return PackedDots(1, (1,), 4 * self.tile.quads, 4, self.segment)

    def start(self, sums: Registers, bias: Sequence[Expr]) -> None:
        for r in range(self.tile.rows):
            for v, value in enumerate(bias):
                sums.set(r * self.tile.quads + v, value)

    def add(self, sums: Registers, w: tirx.Buffer, panel: Expr, segment: Expr, k: Expr, xs: Sequence[Expr]) -> None:
        """Add the products of one int8 vector per row, of bytes [k, k + lanes) of the segment."""
        for j in range(neon.lanes_of(xs[0]) // 4):
            for v in range(self.tile.quads):
                weights = bind(w.vload([panel, segment, k // 4 + j, 4 * v, 0], "int8x16"), "w")
                for r, x in enumerate(xs):
                    index = r * self.tile.quads + v
                    sums.set(index, neon.sdot(sums.get(index), weights, neon.dup_quad(x, j)))

    def total(self, sums: Registers, row: int, quad: int) -> Expr:
        return sums.get(row * self.tile.quads + quad)


class _Smlal:
    """Products by smull and smlal: a register of sums holds two partial sums of each of two channels."""

    sums_per_quad = 2
    max_sums = 16  # LLVM overlaps up to eight products, which also need registers

    @staticmethod
    def loads(rows: int, quads: int) -> float:
        """Instructions that bring operands for 8 products a sum: a load and a zip a row, paired loads of weights."""
        return 2 * rows + quads

    def __init__(self, tile: Tile, rows: Rows) -> None:
        self.tile = tile
        segments, length = rows.runs
        self.shape = (segments, -(-length // 8), 2 * tile.quads, 16)
        self.segment = length

    def packing(self) -> Packing:
        return PackedPairs(1, (1,), 4 * self.tile.quads, self.segment)

    def start(self, sums: Registers, bias: Sequence[Expr]) -> None:
        zero = neon.splat(tirx.const(0, "int32"), 4)
        pairs = [bind(neon.shuffle([value, zero], at), "b") for value in bias for at in ((0, 4, 1, 5), (2, 6, 3, 7))]
        for r in range(self.tile.rows):
            for p, value in enumerate(pairs):
                sums.set(r * len(pairs) + p, value)

    def add(self, sums: Registers, w: tirx.Buffer, panel: Expr, segment: Expr, k: Expr, xs: Sequence[Expr]) -> None:
        """Add the products of one int8 vector per row, of bytes [k, k + lanes) of the segment."""
        pairs = 2 * self.tile.quads
        lanes = neon.lanes_of(xs[0])
        for half in range(max(1, lanes // 8)):
            words = [tirx.reinterpret(f"int32x{lanes // 4}" if lanes > 4 else "int32", x) for x in xs]
            if lanes == 4:
                twice = [bind(tirx.reinterpret("int8x8", neon.splat(word, 2)), "x2") for word in words]
            else:
                at = [2 * half, 2 * half, 2 * half + 1, 2 * half + 1]
                twice = [bind(tirx.reinterpret("int8x16", neon.shuffle([word], at)), "x2") for word in words]
            for p in range(pairs):
                weights = bind(w.vload([panel, segment, k // 8 + half, p, 0], "int8x16"), "w")
                for r, x in enumerate(twice):
                    products = neon.smull(neon.low(weights, 8), x if lanes == 4 else neon.low(x, 8))
                    if lanes > 4:
                        products = products + neon.smull(neon.high(weights, 8), neon.high(x, 8))
                    sums.set(r * pairs + p, neon.sadalp(sums.get(r * pairs + p), products))

    def total(self, sums: Registers, row: int, quad: int) -> Expr:
        first = 2 * (row * self.tile.quads + quad)
        return neon.addp(sums.get(first), sums.get(first + 1))


class _Matmul:
    """Emits one kernel."""

    def __init__(self, kernel: Dense | Conv2d, rows: Rows, tile: Tile, products: type[_Sdot] | type[_Smlal]) -> None:
        self.kernel, self.rows, self.tile = kernel, rows, tile
        self.products = products(tile, rows)
        self.panels = kernel.co // (4 * tile.quads)

    def build(self, func: tirx.PrimFunc) -> tirx.PrimFunc:
        shapes = {1: (self.panels, *self.products.shape)}
        return build_function(func, self._body, [self.products.packing()], shapes)

    def _body(self, **buffers: tirx.Buffer) -> None:
        tiles = self.rows.count // self.tile.rows
        group = largest_divisor(tiles, min(MIN_PARALLEL, max(1, tiles // MIN_PARALLEL)))
        width = 4 * self.tile.quads
        if tiles == 1:
            with loop(self.panels, "panel", parallel=True) as panel:
                self._tile(buffers, tirx.IntImm("int32", 0), panel)
                if self.kernel.epilogue == "lut":
                    with loop(self.tile.rows, "row") as row:
                        at = row * self.kernel.co + panel * width
                        ep.emit_look_up(buffers["y"], buffers["lut"], at, width)
            return
        rows = group * self.tile.rows
        with loop(tiles // group, "chunk", parallel=True) as chunk:
            with loop(self.panels, "panel") as panel, loop(group, "tile") as tile:
                self._tile(buffers, chunk * group + tile, panel)
            if self.kernel.epilogue == "lut":
                size = rows * self.kernel.co
                ep.emit_look_up(buffers["y"], buffers["lut"], chunk * size, size)

    def _tile(self, b: dict[str, tirx.Buffer], tile: Expr, panel: Expr) -> None:
        quads = self.tile.quads
        channel = panel * (4 * quads)
        sums = Registers("sums", self.tile.rows * quads * self.products.sums_per_quad, "int32x4")
        bias = [bind(b["bias"].vload([channel + 4 * v], "int32x4"), "bias") for v in range(quads)]
        self.products.start(sums, bias)
        self._accumulate(sums, b, tile, panel)
        totals = [[bind(self.products.total(sums, r, v), "acc") for v in range(quads)] for r in range(self.tile.rows)]
        mult = [bind(b["mult"].vload([channel + 4 * v], "float32x4"), "mult") for v in range(quads)]
        if self.kernel.out_dtype == "float32":
            for r, row in enumerate(totals):
                for v, acc in enumerate(row):
                    at = self._output_index(tile, r, channel + 4 * v)
                    store_vector(b["y"], at, ep.scaled(acc, mult[v]), 4)
            return
        flat = [acc for row in totals for acc in row]
        runs = [
            run for r in range(self.tile.rows) for run in ep.split_runs(self._output_index(tile, r, channel), quads)
        ]
        emit_epilogue(self.kernel.epilogue, b, flat, mult * self.tile.rows, runs)

    def _accumulate(self, sums: Registers, b: dict[str, tirx.Buffer], tile: Expr, panel: Expr) -> None:
        segments, length = self.rows.runs
        zero = tirx.IntImm("int32", 0)

        def add(segment: Expr, k: Expr, lanes: int) -> None:
            xs = [bind(self._input(b["x"], tile, r, segment, k, lanes), "x") for r in range(self.tile.rows)]
            self.products.add(sums, b["w"], panel, segment, k, xs)

        if self.rows.gathered:
            for k in range(0, length, 16):
                add(zero, tirx.IntImm("int32", k), min(16, length - k))
            return
        step = STEP if length >= 2 * STEP else 8
        steps = length // step
        # A loop, however short, keeps LLVM from scheduling the products into the epilogue, which costs spills.
        unrolled = largest_divisor(steps, min(MAX_UNROLLED, max(1, steps // 2))) if steps else 1
        with loop(segments, "segment") as segment:
            if steps:
                with loop(steps // unrolled, "k") as k:
                    for u in range(unrolled):
                        add(segment, (k * unrolled + u) * step, step)
            done = steps * step
            for lanes in (8, 4):
                if length - done >= lanes:
                    add(segment, tirx.IntImm("int32", done), lanes)
                    done += lanes

    def _input(self, x: tirx.Buffer, tile: Expr, row: int, segment: Expr, k: Expr, lanes: int) -> Expr:
        if not self.rows.gathered:
            return x.vload([*self._input_index(tile, row, segment), k], f"int8x{lanes}")
        pieces = []
        for at in range(int(k), int(k) + lanes, 4):
            segment, offset = divmod(at, self.rows.length)
            pieces.append(x.vload([*self._input_index(tile, row, segment), offset], "int8x4"))
        return neon.concat(*pieces)

    def _input_index(self, tile: Expr, row: int, segment: Expr | int) -> list[Expr]:
        kernel = self.kernel
        if isinstance(kernel, Dense):
            return [tile * self.tile.rows + row]
        n, i, j = self._pixel(tile, row)
        return [n, i * kernel.stride_h + segment, j * kernel.stride_w]

    def _pixel(self, tile: Expr, row: int) -> tuple[Expr, Expr, Expr]:
        assert isinstance(self.kernel, Conv2d)
        oh, ow = self.kernel.out_hw
        per_line = ow // self.tile.rows
        line = tirx.floordiv(tile, per_line)
        column = tirx.floormod(tile, per_line) * self.tile.rows + row
        return tirx.floordiv(line, oh), tirx.floormod(line, oh), column

    def _output_index(self, tile: Expr, row: int, channel: Expr) -> tuple[Expr, ...]:
        if isinstance(self.kernel, Dense):
            return (tile * self.tile.rows + row, channel)
        return (*self._pixel(tile, row), channel)


def emit_epilogue(
    epilogue: str, b: dict[str, tirx.Buffer], sums: Sequence[Expr], mult: Sequence[Expr], runs: Sequence[ep.Run]
) -> None:
    """Requantize quads of int32 sums, `mult` float32x4 for each, into y at `runs`.

    With a table, y holds its indices afterwards: `ep.emit_look_up` finishes, once the table can stay in registers.
    """
    zero_point = ep.zero_point_vector(b["qp"][1])
    if epilogue == "residual":
        m_r = bind(neon.splat(b["rp"][1], 4), "m_r")
        zp_r = bind(neon.splat(b["rp"][0], 4), "zp_r")
        rs = bind(neon.splat(b["rs"][0], 4), "rs")
    at = 0
    for group in ep.group_runs(runs):
        count = sum(run.quads for run in group)
        quads, scales = sums[at : at + count], mult[at : at + count]
        if epilogue == "residual":
            residuals = ep.emit_residual_inputs(b["r"], group)
            values = []
            for acc, scale, r in zip(quads, scales, residuals, strict=True):
                total = ep.fixed(acc, scale) + (r.astype("int32x4") - zp_r) * m_r
                values.append(bind(ep.scaled(total, rs), "f"))
        else:
            values = [bind(ep.scaled(acc, scale), "f") for acc, scale in zip(quads, scales, strict=True)]
        ep.emit_stores(b["y"], group, bind(ep.requantized(ep.padded_quads(values), zero_point), "q"))
        at += count
