"""Emits a product by its plan: tiles of rows x channels over packed weights, the epilogue on each tile."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tvm import tirx
from tvm.tirx import Expr
from tvm.tirx.script.builder import ir as T

from ...intrinsics import arm_neon as neon
from ...kernels.epilogue import WIDE_RESIDUAL_BITS
from . import epilogue as ep
from .function import Registers, bind, loop, store_vector
from .product_plan import Plan
from .products import Smlal

Buffers = Mapping[str, tirx.Buffer]
"""x, w, bias, mult, qp, what the epilogue reads, and y: parameters of the function or scratch."""
Indices = tuple[Expr | int, ...]


class ProductEmitter:
    """Emits one product.

    x_at      (tile, row of the tile, segment) -> indices in x where the row's segment begins
    y_at      (tile, row of the tile, channel) -> indices in y
    """

    def __init__(
        self,
        plan: Plan,
        epilogue: str,
        x_at: Callable[[Expr, int, Expr | int], Indices],
        y_at: Callable[[Expr, int, Expr], Indices],
    ) -> None:
        self.plan, self.rows, self.tile, self.epilogue = plan, plan.rows, plan.tile, epilogue
        self.x_at, self.y_at = x_at, y_at
        # Expanded rows are joined to one segment.
        runs = (1, plan.rows.inputs) if plan.expands else plan.rows.runs
        self.products = plan.products(plan.tile, *runs)
        self.expanded: list[list[tirx.Buffer]] = []

    @property
    def weights_shape(self) -> tuple[int, ...]:
        """Shape of the packed weights."""
        return (self.plan.panels, *self.products.shape)

    def emit_tiles(self, b: Buffers, first: Expr, count: int) -> None:
        """Emit `count` tiles of rows from tile `first`, all channels."""
        panels = self.plan.panels
        if self.plan.rows_first:
            with loop(count, "tile") as tile:
                if self.plan.expands:
                    self._expand(b["x"], first + tile)
                with loop(panels, "panel") as panel:
                    self.emit_tile(b, first + tile, panel)
        else:
            with loop(panels, "panel") as panel, loop(count, "tile") as tile:
                self.emit_tile(b, first + tile, panel)

    def emit_tile(self, b: Buffers, tile: Expr, panel: Expr) -> None:
        """Emit one tile; where rows are expanded, `emit_tiles` has done it."""
        quads = self.tile.quads
        channel = panel * (4 * quads)
        sums = Registers("sums", self.tile.rows * quads * self.products.sums_per_quad, "int32x4")
        bias = [bind(b["bias"].vload([channel + 4 * v], "int32x4"), "bias") for v in range(quads)]
        if not self.plan.peels:
            self.products.start(sums, bias)
        if self.plan.expands:
            self._accumulate_expanded(sums, b, panel)
        else:
            self._accumulate(sums, b, tile, panel)
        totals = [[bind(self.products.total(sums, r, v), "acc") for v in range(quads)] for r in range(self.tile.rows)]
        if self.plan.peels:
            totals = [[bind(acc + start, "acc") for acc, start in zip(row, bias, strict=True)] for row in totals]
        mult = [bind(b["mult"].vload([channel + 4 * v], "float32x4"), "mult") for v in range(quads)]
        if str(b["y"].dtype) == "float32":
            for r, row in enumerate(totals):
                for v, acc in enumerate(row):
                    store_vector(b["y"], self.y_at(tile, r, channel + 4 * v), ep.scaled(acc, mult[v]), 4)
            return
        flat = [acc for row in totals for acc in row]
        runs = [run for r in range(self.tile.rows) for run in ep.split_runs(self.y_at(tile, r, channel), quads)]
        emit_epilogue(self.epilogue, b, flat, mult * self.tile.rows, runs)

    def _expand(self, x: tirx.Buffer, tile: Expr) -> None:
        """Write the rows of a tile to the stack as the products want them, once for all panels."""
        assert isinstance(self.products, Smlal)
        rows, parts, products = self.rows, self.rows.parts, self.products
        self.expanded = [
            [T.alloc_buffer((16 * products.per_group * count,), "int8") for _, count in parts]
            for _ in range(self.tile.rows)
        ]

        def write(row: int, segment: Expr, k: Expr, lanes: int, part: int, group: Expr) -> None:
            vectors = products.expand(bind(self._input(x, tile, row, segment, k, lanes), "x"))
            for at, vector in enumerate(vectors):
                store_vector(self.expanded[row][part], [(group * products.per_group + at) * 16], vector, 16)

        if rows.gathered:
            for r in range(self.tile.rows):
                for k in range(0, rows.inputs, 16):
                    write(r, _int(0), _int(k), min(16, rows.inputs - k), 0, _int(k // 8))
            return
        for part, (first, count) in enumerate(parts):
            one = rows.segments == 1  # several segments fit one part
            length = min(8 * count, rows.length - 8 * first) if one else rows.length
            with loop(rows.segments, "segment") as segment:
                base = segment * (rows.length // 8)
                if length // 16:
                    with loop(length // 16, "k") as k:
                        for r in range(self.tile.rows):
                            write(r, segment, 8 * first + k * 16, 16, part, base + k * 2)
                done = length // 16 * 16
                for lanes in (8, 4):
                    if length - done >= lanes:
                        for r in range(self.tile.rows):
                            write(r, segment, _int(8 * first + done), lanes, part, base + done // 8)
                        done += lanes

    def _accumulate_expanded(self, sums: Registers, b: Buffers, panel: Expr) -> None:
        assert isinstance(self.products, Smlal)
        products = self.products
        for part, (first, count) in enumerate(self.rows.parts):

            def add(group: Expr, part: int = part, first: int = first, sets: bool = False) -> None:
                for at in range(products.per_group):
                    vector = group * products.per_group + at
                    xs = [bind(row[part].vload([vector * 16], "int8x16"), "x2") for row in self.expanded]
                    whole = first * products.per_group + vector
                    products.add_expanded(sums, b["w"], panel, _int(0), whole, xs, sets and at == 0)

            done = 1 if part == 0 and self.plan.peels else 0
            if done:
                add(_int(0), sets=True)
            unrolled = self.plan.unrolled[part]
            with loop((count - done) // unrolled, "k") as k:
                for u in range(unrolled):
                    add(done + k * unrolled + u)

    def _accumulate(self, sums: Registers, b: Buffers, tile: Expr, panel: Expr) -> None:
        segments, length = self.rows.runs

        def add(segment: Expr, k: Expr, lanes: int, sets: bool = False) -> None:
            xs = [bind(self._input(b["x"], tile, r, segment, k, lanes), "x") for r in range(self.tile.rows)]
            self.products.add(sums, b["w"], panel, segment, k, xs, sets)

        if self.rows.gathered:
            for k in range(0, length, 16):
                add(_int(0), _int(k), min(16, length - k))
            return
        step = self.plan.step
        peeled = int(self.plan.peels)
        steps = length // step - peeled
        (unrolled,) = self.plan.unrolled
        with loop(segments, "segment") as segment:
            if peeled:
                add(segment, _int(0), step, sets=True)
            if steps:
                with loop(steps // unrolled, "k") as k:
                    for u in range(unrolled):
                        add(segment, (peeled + k * unrolled + u) * step, step)
            done = (steps + peeled) * step
            for lanes in (8, 4):
                if length - done >= lanes:
                    add(segment, _int(done), lanes)
                    done += lanes

    def _input(self, x: tirx.Buffer, tile: Expr, row: int, segment: Expr, k: Expr, lanes: int) -> Expr:
        if not self.rows.gathered:
            *outer, start = self.x_at(tile, row, segment)
            return x.vload([*outer, start + k], f"{self.products.x_dtype}x{lanes}")
        pieces = []
        for at in range(int(k), int(k) + lanes, 4):
            which, offset = divmod(at, self.rows.length)
            *outer, start = self.x_at(tile, row, which)
            pieces.append(x.vload([*outer, start + offset], f"{self.products.x_dtype}x4"))
        return neon.concat(*pieces)


def _int(value: int) -> Expr:
    return tirx.IntImm("int32", value)


def emit_epilogue(
    epilogue: str, b: Buffers, sums: Sequence[Expr], mult: Sequence[Expr], runs: Sequence[ep.Run]
) -> None:
    """Requantize quads of int32 sums, `mult` float32x4 for each, into y at `runs`.

    With a table, y holds its indices afterwards: `ep.emit_look_up` finishes, once the table can stay in registers.
    """
    zero_point = ep.zero_point_vector(b["qp"][1])
    dtype = str(b["y"].dtype)
    if epilogue == "residual":
        m_r = bind(neon.splat(b["rp"][1], 4), "m_r")
        zp_r = bind(neon.splat(b["rp"][0], 4), "zp_r")
        rs = bind(neon.splat(b["rs"][0], 4), "rs")
        shift = WIDE_RESIDUAL_BITS if "int16" in (dtype, str(b["r"].dtype)) else 0
    at = 0
    for group in ep.group_runs(runs):
        count = sum(run.quads for run in group)
        quads, scales = sums[at : at + count], mult[at : at + count]
        if epilogue == "residual":
            residuals = ep.emit_residual_inputs(b["r"], group)
            values = []
            for acc, scale, r in zip(quads, scales, residuals, strict=True):
                branch = ep.fixed(acc, scale)
                branch = branch << neon.splat(tirx.const(shift, "int32"), 4) if shift else branch
                total = branch + (r.astype("int32x4") - zp_r) * m_r
                values.append(bind(ep.scaled(total, rs), "f"))
        else:
            values = [bind(ep.scaled(acc, scale), "f") for acc, scale in zip(quads, scales, strict=True)]
        ep.emit_stores(b["y"], group, bind(ep.requantized(ep.padded_quads(values), zero_point, dtype), "q"))
        at += count
