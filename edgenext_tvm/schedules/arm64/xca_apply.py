"""xca_apply on AArch64: a matrix product per head, whose weights, the scores, are packed on the stack first."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.tirx import Expr
from tvm.tirx.script.builder import ir as T

from ...intrinsics import arm_neon as neon
from ...kernels import XcaApply
from ..space import Decisions, Knob, Space
from ..vector_unit import largest_divisor
from . import epilogue as ep
from .function import Registers, bind, build_function, loop, store_vector
from .product_plan import products_for
from .products import Products, Tile

MAX_HEAD_CHANNELS = 64
"""The products of a head are unrolled, and its scores lie on the stack: d * d bytes and padding."""
MAX_CHUNKS = 4
"""Ranges of tokens a head is split into: each packs the scores again."""
DEFAULT_CHUNKS = 2


@dataclass(frozen=True)
class Piece:
    """Key channels [start, start + lanes) loaded at once; those before `first` belong to an earlier piece."""

    start: int
    lanes: int
    first: int
    slot: int


def split_keys(d: int, lanes_per_slot: int) -> list[Piece]:
    """Cover d key channels by loads of 16, 8 and 4 that stay inside them; the last one may overlap."""
    pieces, done, slot = [], 0, 0
    while done < d:
        lanes = next((lanes for lanes in (16, 8, 4) if d - done >= lanes), 4)
        pieces.append(Piece(min(done, d - lanes), lanes, done, slot))
        done += lanes
        slot += max(1, lanes // lanes_per_slot)
    return pieces


def xca_apply_space(kernel: XcaApply, func: tirx.PrimFunc, features: frozenset[str], family: str) -> Space | None:
    """Return the kernel's space, or None for heads of fewer than four channels or more than MAX_HEAD_CHANNELS.

    rows    tokens of a tile
    panels  parts that a head's channels are split into, each a tile wide
    chunks  ranges of tokens a head is split into
    """
    if not 4 <= kernel.d <= MAX_HEAD_CHANNELS:
        return None
    products = products_for(features)
    quads = -(-kernel.d // 4)
    rows = tuple(r for r in (1, 2, 4) if kernel.t % r == 0)
    default_rows = max(r for r in rows if r <= products.xca_rows)

    def panels_for(rows: int) -> int:
        return -(-quads // (products.max_sums // products.sums_per_quad // rows))

    # More panels than needed only pay for rows that need them anyway.
    panels = tuple(range(panels_for(rows[0]), min(quads, panels_for(rows[-1]) + 1) + 1))
    chunks = tuple(c for c in range(1, MAX_CHUNKS + 1) if kernel.t // default_rows % c == 0)
    knobs = (
        Knob("rows", rows, default_rows),
        Knob("panels", panels, panels_for(default_rows)),
        Knob("chunks", chunks, largest_divisor(kernel.t // default_rows, DEFAULT_CHUNKS)),
    )

    def build(d: Decisions) -> tirx.PrimFunc:
        return build_function(func, _XcaApply(kernel, products, d["rows"], d["panels"], d["chunks"]).body)

    def fits(d: Decisions) -> bool:
        return d["panels"] >= panels_for(d["rows"]) and kernel.t // d["rows"] % d["chunks"] == 0

    return Space(family, build, knobs, fits)


class _Scores:
    """Packed scores, one small buffer per slot, seen as the weights of channels from quad `first`."""

    def __init__(self, slots: list[tirx.Buffer], products: type[Products], first: int) -> None:
        self.slots, self.first = slots, first
        self.item_bytes, self.quad_bytes = products.item_bytes, 16 * products.sums_per_quad

    def vload(self, indices: list[Expr | int], dtype: str) -> Expr:
        """What products.add reads: indices are (panel, segment, slot, item, 0)."""
        slot, item = int(indices[2]), int(indices[3])
        return self.slots[slot].vload([self.first * self.quad_bytes + item * self.item_bytes], dtype)


class _XcaApply:
    def __init__(self, kernel: XcaApply, products: type[Products], rows: int, panels: int, chunks: int) -> None:
        self.kernel, self.products = kernel, products
        self.d = kernel.d
        self.quads = -(-self.d // 4)
        self.pieces = split_keys(self.d, products.slot_lanes)
        self.rows, self.chunks = rows, chunks
        self.panels = [(self.quads * p // panels, self.quads * (p + 1) // panels) for p in range(panels)]

    def body(self, qkv: tirx.Buffer, e: tirx.Buffer, qp: tirx.Buffer, scale: tirx.Buffer, y: tirx.Buffer) -> None:
        tiles = self.kernel.t // self.rows
        chunks = self.chunks
        with loop(self.kernel.heads * chunks, "part", parallel=True) as part:
            head = bind(tirx.floordiv(part, chunks), "head")
            slots = self._pack(e, head)
            bias, mult = self._totals(slots, qp, scale)
            zero_point = ep.zero_point_vector(qp[1])
            with loop(tiles // chunks, "tile") as tile:
                row = (tirx.floormod(part, chunks) * (tiles // chunks) + tile) * self.rows
                for first, last in self.panels:
                    self._tile(qkv, y, slots, bias, mult, zero_point, head, row, first, last)

    def _channel(self, quad: int) -> int:
        """First channel of a quad; the last quad overlaps the one before rather than leave the head."""
        return min(4 * quad, self.d - 4)

    def _pack(self, e: tirx.Buffer, head: Expr) -> list[tirx.Buffer]:
        last = self.pieces[-1]
        count = last.slot + max(1, last.lanes // self.products.slot_lanes)
        slot_bytes = self.quads * 16 * self.products.sums_per_quad
        slots = [T.alloc_buffer((slot_bytes,), "int8") for _ in range(count)]
        for piece in self.pieces:
            for row in range(piece.lanes):
                slot = slots[piece.slot + row // self.products.slot_lanes]
                key = piece.start + row

                def put(quad: Expr | int, lane: int, channel: Expr | int, slot=slot, key=key, row=row, piece=piece):
                    value = e[head, key, channel] if key >= piece.first else tirx.const(0, "int8")
                    T.buffer_store(slot, value, [self.products.byte_of(quad, lane, row % self.products.slot_lanes)])

                whole = self.d // 4
                with loop(whole, "quad") as quad:
                    for lane in range(4):
                        put(quad, lane, quad * 4 + lane)
                if self.quads > whole:
                    for lane in range(4):
                        put(whole, lane, self.d - 4 + lane)
        return slots

    def _totals(self, slots: list[tirx.Buffer], qp: tirx.Buffer, scale: tirx.Buffer) -> tuple[Registers, Registers]:
        """(-zp_v * sum of scores, scale / sum of scores) per quad of channels."""
        bias, mult = Registers("bias", self.quads, "int32x4"), Registers("mult", self.quads, "float32x4")
        tile = Tile(1, self.quads)
        products = self.products(tile, 1, self.d)
        sums = Registers("totals", self.quads * self.products.sums_per_quad, "int32x4")
        products.start(sums, [neon.splat(tirx.const(0, "int32"), 4)] * self.quads)
        scores = _Scores(slots, self.products, 0)
        for piece in self.pieces:
            ones = bind(neon.splat(tirx.const(1, "int8"), piece.lanes), "ones")
            self._add(products, sums, scores, piece, [ones])
        for quad in range(self.quads):
            total = bind(products.total(sums, 0, quad), "total")
            bias.set(quad, neon.splat(tirx.const(0, "int32") - qp[0], 4) * total)
            mult.set(quad, neon.splat(scale[0], 4) / total.astype("float32x4"))
        return bias, mult

    def _add(self, products: Products, sums: Registers, scores: _Scores, piece: Piece, xs: list[Expr]) -> None:
        zero = tirx.IntImm("int32", 0)
        # products.add finds a slot by the position of its first byte in a run of keys
        products.add(sums, scores, zero, zero, piece.slot * self.products.slot_lanes, xs)  # type: ignore[arg-type]

    def _tile(
        self,
        qkv: tirx.Buffer,
        y: tirx.Buffer,
        slots: list[tirx.Buffer],
        bias: Registers,
        mult: Registers,
        zero_point: Expr,
        head: Expr,
        row: Expr,
        first: int,
        last: int,
    ) -> None:
        quads = last - first
        products = self.products(Tile(self.rows, quads), 1, self.d)
        sums = Registers("sums", self.rows * quads * self.products.sums_per_quad, "int32x4")
        products.start(sums, [bind(bias.get(first + q), "bias") for q in range(quads)])
        scores = _Scores(slots, self.products, first)
        channel = 2 * self.kernel.c + head * self.d
        for piece in self.pieces:
            xs = [
                bind(qkv.vload([row + r, channel + piece.start], f"int8x{piece.lanes}"), "x") for r in range(self.rows)
            ]
            self._add(products, sums, scores, piece, xs)
        at = 0
        flat = [(r, q) for r in range(self.rows) for q in range(quads)]
        while at < len(flat):
            group = flat[at : at + ep.QUADS]
            values = [bind(ep.scaled(products.total(sums, r, q), mult.get(first + q)), "f") for r, q in group]
            out = bind(ep.requantized(ep.padded_quads(values), zero_point), "q")
            for i, (r, q) in enumerate(group):
                where = [row + r, head * self.d + self._channel(first + q)]
                store_vector(y, where, neon.shuffle([out], range(4 * i, 4 * i + 4)), 4)
            at += ep.QUADS
