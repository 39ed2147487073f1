"""From int32 sums in registers to int8 in memory: up to four vectors of eight become one vector of bytes.

The clamp that the kernels state in float is done by saturating packs. The float limit stays above: vcvtps2dq returns
-2^31 for what does not fit, which is right below and would be wrong above. Adding the zero point to int16 saturates
as well, and a sum that saturates there is out of the int8 range on the same side.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from tvm import tirx
from tvm.tirx import Expr
from tvm.tirx.script.builder import ir as T

from ...intrinsics import x86_avx2 as avx2
from ...kernels import requantize as rq
from ..x86.emit import bind, load, store
from ..x86.epilogue import LARGEST

LANES = 8
"""int32 or float32 elements of a vector."""
MAX_VECTORS = 4


def constant(value: int) -> Expr:
    """Return int32x8."""
    return avx2.splat(value, "int32", LANES)


def rounded(total: Expr, multiplier: Expr) -> Expr:
    """Return int32x8: float32(total) times `multiplier`, rounded half to even; above 2^30 it stays there."""
    scaled = total.astype("float32x8") * multiplier
    return avx2.round_half_even(tirx.min(scaled, avx2.splat(LARGEST, "float32", LANES)))


def fixed(total: Expr, multiplier: Expr) -> Expr:
    """Return int32x8: `fixed` of kernels."""
    limit = float(rq.FIXED_LIMIT)
    scaled = tirx.max(total.astype("float32x8") * multiplier, avx2.splat(-limit, "float32", LANES))
    return avx2.round_half_even(tirx.min(scaled, avx2.splat(limit, "float32", LANES)))


def requantize(sums: Sequence[Expr], multipliers: Sequence[Expr], zero_point: Expr) -> Expr:
    """Return int8x32: the channels of 1 to 4 int32x8 in order, the rest undefined; `requant` of kernels."""
    values = [rounded(total, multiplier) for total, multiplier in zip(sums, multipliers, strict=True)]
    filled = values + [values[-1]] * (MAX_VECTORS - len(values))
    zero_points = avx2.splat(zero_point.astype("int16"), "int16", 2 * LANES)
    low = avx2.add_saturated(avx2.pack_int32(filled[0], filled[1]), zero_points)
    high = low
    if len(values) > 2:
        high = avx2.add_saturated(avx2.pack_int32(filled[2], filled[3]), zero_points)
    # Packs work per lane of 128 bits: dword 4 L + v holds channels 4 L .. 4 L + 3 of vector v.
    packed = avx2.as_type("int32x8", avx2.pack_int16(low, high))
    order = [4 * lane + vector for vector in range(MAX_VECTORS) for lane in range(2)]
    return avx2.as_type("int8x32", avx2.shuffle(packed, order))


class Table:
    """A 256-entry table for int8 indices, as the differences of neighbouring blocks of 16 entries.

    A block's look-up gives 0 for a negative index. So of q, q - 16, q - 32, .. (saturated) all blocks up to the one
    that q lies in answer, and their XOR is the entry. q with its sign flipped does the same for negative q.
    """

    def __init__(self, lut: tirx.Buffer) -> None:
        self.blocks = T.alloc_buffer((256,), "int8")
        lanes = avx2.YMM_BYTES // 2
        with T.serial(2) as half:
            previous = avx2.splat(0, "int8", lanes)
            for block in range(8):
                entries = bind("entries", load(lut, [half * 128 + lanes * block], lanes))
                store(self.blocks, [half * 128 + lanes * block], entries ^ previous, lanes)
                previous = entries

    def __call__(self, indices: Sequence[Expr]) -> list[Expr]:
        """Return the entries of each int8x32; together they load the table once."""
        found: list[Expr | None] = [None] * len(indices)
        lanes = avx2.YMM_BYTES // 2
        for half in range(2):
            flips = avx2.splat(-128, "int8", avx2.YMM_BYTES)
            # Entry 0 belongs to -128: the table's first half answers negative indices.
            rests = [bind("rest", q ^ flips) if half == 0 else q for q in indices]
            for block in range(8):
                entries = load(self.blocks, [128 * half + lanes * block], lanes)
                table = bind("table", avx2.widen(entries, lanes, avx2.YMM_BYTES))
                if block:
                    sixteen = avx2.splat(16, "int8", avx2.YMM_BYTES)
                    rests = [bind("rest", avx2.subtract_saturated(rest, sixteen)) for rest in rests]
                for i, rest in enumerate(rests):
                    entry = avx2.lookup_16(table, rest)
                    before = found[i]
                    found[i] = bind("found", entry if before is None else before ^ entry)
        return [value for value in found if value is not None]


def slice_bytes(value: Expr, first: int, count: int) -> Expr:
    """Return bytes [first, first + count) of an int8x32."""
    return value if count == avx2.YMM_BYTES else avx2.shuffle(value, list(range(first, first + count)))


def load_bytes(buffer: tirx.Buffer, indices: Sequence[Expr | int], count: int, lanes: int = avx2.YMM_BYTES) -> Expr:
    """Return `count` bytes from `indices`, then zeros, as int8 x lanes; no byte more is read."""
    *outer, first = indices
    if count == lanes:
        return load(buffer, indices, lanes)
    pieces: list[Expr] = []
    at = 0
    while at < count:
        size = 1 << ((count - at).bit_length() - 1)
        pieces.append(load(buffer, [*outer, first + at], size))
        at += size
    # Shuffle joins vectors of one length only, so each piece is first placed among zeros.
    placed, at = avx2.splat(0, "int8", lanes), 0
    for piece in pieces:
        size = 1 if str(piece.ty.dtype) == "int8" else int(str(piece.ty.dtype).partition("x")[2])
        wide = avx2.widen(piece, size, lanes)
        order = [lanes + i - at if at <= i < at + size else i for i in range(lanes)]
        placed = tirx.Shuffle([placed, wide], [tirx.const(i, "int32") for i in order])
        at += size
    return placed


@dataclasses.dataclass(frozen=True)
class Sums:
    """`count` channels from `channel` (an index of the multipliers), summed in one register, for y at `position`."""

    total: Expr
    position: tuple[Expr | int, ...]
    channel: Expr | int
    count: int


class Epilogue:
    """The epilogue of a matrix product: none, lut or residual (see kernels.epilogue), or float32 logits.

    qp, mult (padded to whole vectors) and extra are the kernel's arguments; `converted` is what y holds of int8.
    """

    def __init__(
        self,
        kind: str,
        mult: tirx.Buffer,
        qp: tirx.Buffer,
        extra: Sequence[tirx.Buffer],
        y: tirx.Buffer | None,
        converted: Callable[[Expr], Expr] = lambda value: value,
    ) -> None:
        self.kind, self.mult, self.extra, self.y, self.converted = kind, mult, extra, y, converted
        self.is_float = y is not None and str(y.dtype) == "float32"
        self.zero_point = None if self.is_float else bind("zp_out", qp[1])
        self.table: Table | None = None

    def prepare(self) -> None:
        """Emit what an iteration of the parallel loop needs once."""
        if self.kind == "lut":
            self.table = Table(self.extra[0])

    def emit(self, rows: Sequence[Sequence[Sums]]) -> None:
        """Emit the results of rows of registers; the channels of a row are consecutive."""
        flat = [sums for row in rows for sums in row]
        if self.is_float:
            for sums in flat:
                value = sums.total.astype("float32x8") * self._multiplier(sums)
                value = value if sums.count == LANES else avx2.shuffle(value, list(range(sums.count)))
                store(self.y, sums.position, value, sums.count)
            return
        batches = [flat[at : at + MAX_VECTORS] for at in range(0, len(flat), MAX_VECTORS)]
        for first in range(0, len(batches), 2):
            pair = batches[first : first + 2]
            found = [bind("q", self._requantized(batch)) for batch in pair]
            if self.table is not None:
                found = self.table(found)
            for batch, value in zip(pair, found, strict=True):
                self._store(batch, value)

    def _multiplier(self, sums: Sums) -> Expr:
        return load(self.mult, [sums.channel], LANES)

    def _requantized(self, batch: Sequence[Sums]) -> Expr:
        if self.kind != "residual":
            multipliers = [self._multiplier(sums) for sums in batch]
            return requantize([sums.total for sums in batch], multipliers, self.zero_point)
        r, rp, rs = self.extra
        totals = []
        for sums in batch:
            residual = avx2.widen(load(r, sums.position, sums.count), sums.count, LANES).astype("int32x8")
            centred = residual - avx2.splat(rp[0], "int32", LANES)
            value = fixed(sums.total, self._multiplier(sums))
            totals.append(value + centred * avx2.splat(rp[1], "int32", LANES))
        return requantize(totals, [avx2.splat(rs[0], "float32", LANES)] * len(totals), self.zero_point)

    def _store(self, batch: Sequence[Sums], value: Expr) -> None:
        """Emit one store per run of registers of the same row."""
        first = 0
        for at, sums in enumerate(batch):
            following = batch[at + 1] if at + 1 < len(batch) else None
            if following is not None and following.position[:-1] == sums.position[:-1]:
                continue
            count = LANES * (at - first) + sums.count
            run = slice_bytes(value, LANES * first, count)
            store(self.y, batch[first].position, self.converted(run), count)
            first = at + 1
