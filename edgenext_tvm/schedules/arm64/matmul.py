"""dense and conv2d on AArch64: register tiles of rows x channels over packed weights, the epilogue on the tile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvm import tirx
from tvm.tirx import Expr
from tvm.tirx.script.builder import ir as T

from ...intrinsics import arm_neon as neon
from ...kernels import Conv2d, Dense
from ...kernels.packing import round_up
from ...kernels.window import needs_padding
from ..vector_unit import divisors, largest_divisor
from . import epilogue as ep
from .function import Registers, bind, build_function, loop, store_vector
from .products import Sdot, Smlal, Tile

REGISTERS = 32
MAX_ROWS = 8
MAX_UNROLLED = 3
"""Steps of 16 products a sum that one iteration of the innermost loop does."""
MAX_GATHERED = 64
"""Bytes of a window that may be gathered from rows that are not whole vectors."""
MAX_EXPANDED_GROUPS = 62
"""Groups of eight inputs of a row in one buffer on the stack: 992 bytes expanded."""
MIN_PANELS = 8
MIN_EXPANDED = 64
"""Expanding rows first pays for that many panels of channels and inputs a row."""
MAX_UNROLLED_GROUPS = 6
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


def split_groups(groups: int) -> list[tuple[int, int]]:
    """(first, count) of the buffers that hold an expanded row of `groups` groups of eight inputs."""
    parts = -(-groups // MAX_EXPANDED_GROUPS)
    per_part = round_up(-(-groups // parts), 2)
    return [(at, min(per_part, groups - at)) for at in range(0, groups, per_part)]


def choose_tile(rows: Rows, channels: int, products: type[Sdot] | type[Smlal]) -> Tile:
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
    products = Sdot if "dotprod" in features else Smlal
    tile = choose_tile(rows, kernel.co, products)
    return _Matmul(kernel, rows, tile, products).build(func)


class _Matmul:
    """Emits one kernel."""

    def __init__(self, kernel: Dense | Conv2d, rows: Rows, tile: Tile, products: type[Sdot] | type[Smlal]) -> None:
        self.kernel, self.rows, self.tile = kernel, rows, tile
        panels = kernel.co // (4 * tile.quads)
        worthwhile = panels >= MIN_PANELS and rows.segments * rows.length >= MIN_EXPANDED
        self.expands = products is Smlal and rows.count > tile.rows and (rows.gathered or worthwhile)
        # Expanded rows are joined to one segment; that needs segments of whole groups of eight, or one segment.
        self.expands = self.expands and (
            rows.gathered
            or rows.segments == 1
            or (rows.length % 8 == 0 and rows.segments * rows.length <= 8 * MAX_EXPANDED_GROUPS)
        )
        runs = (1, rows.segments * rows.length) if self.expands else rows.runs
        self.products = products(tile, *runs)
        self.panels = panels
        self.parts = split_groups(-(-rows.segments * rows.length // 8))
        # The first group may set the sums instead of adding to them, if the others still fit a loop well.
        self.peels = self.expands and largest_divisor(self.parts[0][1] - 1, MAX_UNROLLED_GROUPS) >= 3
        self.expanded: list[list[tirx.Buffer]] = []

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
            if self.expands:
                with loop(group, "tile") as tile:
                    self._expand(buffers["x"], chunk * group + tile)
                    with loop(self.panels, "panel") as panel:
                        self._tile(buffers, chunk * group + tile, panel)
            else:
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
        if not self.peels:
            self.products.start(sums, bias)
        self._accumulate(sums, b, tile, panel)
        totals = [[bind(self.products.total(sums, r, v), "acc") for v in range(quads)] for r in range(self.tile.rows)]
        if self.peels:
            totals = [[bind(acc + start, "acc") for acc, start in zip(row, bias, strict=True)] for row in totals]
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

    def _expand(self, x: tirx.Buffer, tile: Expr) -> None:
        """Write the rows of a tile to the stack as the products want them, once for all panels."""
        total = self.rows.segments * self.rows.length
        self.expanded = [
            [T.alloc_buffer((16 * count,), "int8") for _, count in self.parts] for _ in range(self.tile.rows)
        ]

        def write(row: int, segment: Expr, k: Expr, lanes: int, part: int, group: Expr) -> None:
            vectors = Smlal.expand(bind(self._input(x, tile, row, segment, k, lanes), "x"))
            for half, vector in enumerate(vectors):
                store_vector(self.expanded[row][part], [(group + half) * 16], vector, 16)

        if self.rows.gathered:
            for r in range(self.tile.rows):
                for k in range(0, total, 16):
                    write(r, tirx.IntImm("int32", 0), tirx.IntImm("int32", k), min(16, total - k), 0, k // 8)
            return
        for part, (first, count) in enumerate(self.parts):
            one = self.rows.segments == 1  # several segments fit one part
            length = min(8 * count, self.rows.length - 8 * first) if one else self.rows.length
            with loop(self.rows.segments, "segment") as segment:
                base = segment * (self.rows.length // 8)
                if length // 16:
                    with loop(length // 16, "k") as k:
                        for r in range(self.tile.rows):
                            write(r, segment, 8 * first + k * 16, 16, part, base + k * 2)
                done = length // 16 * 16
                for lanes in (8, 4):
                    if length - done >= lanes:
                        for r in range(self.tile.rows):
                            at = tirx.IntImm("int32", 8 * first + done)
                            write(r, segment, at, lanes, part, base + done // 8)
                        done += lanes

    def _accumulate_expanded(self, sums: Registers, b: dict[str, tirx.Buffer], panel: Expr) -> None:
        assert isinstance(self.products, Smlal)
        products = self.products
        zero = tirx.IntImm("int32", 0)
        for part, (first, count) in enumerate(self.parts):

            def add(group: Expr, part: int = part, first: int = first, sets: bool = False) -> None:
                at = group * 16
                xs = [bind(row[part].vload([at], "int8x16"), "x2") for row in self.expanded]
                products.add_expanded(sums, b["w"], panel, zero, first + group, xs, sets)

            done = 1 if part == 0 and self.peels else 0
            if done:
                add(zero, sets=True)
            # No rest after the loop: LLVM would schedule it into the epilogue, which costs spills.
            unrolled = largest_divisor(count - done, MAX_UNROLLED_GROUPS)
            with loop((count - done) // unrolled, "k") as k:
                for u in range(unrolled):
                    add(done + k * unrolled + u)

    def _accumulate(self, sums: Registers, b: dict[str, tirx.Buffer], tile: Expr, panel: Expr) -> None:
        if self.expanded:
            self._accumulate_expanded(sums, b, panel)
            return
        segments, length = self.rows.runs
        zero = tirx.IntImm("int32", 0)

        def add(segment: Expr, k: Expr, lanes: int) -> None:
            xs = [bind(self._input(b["x"], tile, r, segment, k, lanes), "x") for r in range(self.tile.rows)]
            self.products.add(sums, b["w"], panel, segment, k, xs)

        if self.rows.gathered:
            for k in range(0, length, 16):
                add(zero, tirx.IntImm("int32", k), min(16, length - k))
            return
        step = STEP if length >= 2 * STEP or isinstance(self.products, Smlal) else 8
        steps = length // step
        # With more sums the loads of a second step would need registers that sums hold.
        limit = MAX_UNROLLED if sums.count <= 16 else 1
        # A loop, however short, keeps LLVM from scheduling the products into the epilogue, which costs spills.
        unrolled = largest_divisor(steps, min(limit, max(1, steps // 2))) if steps else 1
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
