"""From int32 sums in registers to int8 in memory: up to four vectors of one row become one vector of bytes.

The clamp that the kernels state in float is done by saturating packs. The float limit stays above: vcvtps2dq returns
-2^31 for what does not fit, which is right below and would be wrong above. Adding the zero point to int16 saturates
as well, and a sum that saturates there is out of the int8 range on the same side.
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx
from tvm.tirx import Expr

from ...intrinsics import x86
from ...kernels import requantize as rq
from .emit import LANES, bind, load, store

MAX_VECTORS = 4
LARGEST = float(1 << 30)
"""Anything from 2^9 on saturates; this is far from both limits."""


def requantize(sums: Sequence[Expr], multipliers: Sequence[Expr], zero_point: Expr) -> Expr:
    """Return int8x64: 16 channels of each of 1 to 4 int32x16 in order, the rest undefined; `requant` of kernels."""
    rounded = []
    for total, multiplier in zip(sums, multipliers, strict=True):
        scaled = total.astype("float32x16") * multiplier
        rounded.append(x86.round_half_even(tirx.min(scaled, x86.splat(LARGEST, "float32", LANES))))
    return narrow(rounded, zero_point)


def narrow(values: Sequence[Expr], zero_point: Expr) -> Expr:
    """Return int8x64: 1 to 4 int32x16 in order plus the zero point, saturated; the rest undefined."""
    values = list(values)
    filled = values + [values[-1]] * (MAX_VECTORS - len(values))
    zero_points = x86.splat(zero_point.astype("int16"), "int16", 2 * LANES)
    low = x86.add_saturated(x86.pack_int32(filled[0], filled[1]), zero_points)
    high = low
    if len(values) > 2:
        high = x86.add_saturated(x86.pack_int32(filled[2], filled[3]), zero_points)
    # Packs work per lane of 128 bits: dword 4 L + v holds channels 4 L .. 4 L + 3 of vector v.
    packed = x86.as_type("int32x16", x86.pack_int16(low, high))
    order = [4 * lane + vector for vector in range(MAX_VECTORS) for lane in range(4)]
    return x86.as_type("int8x64", x86.shuffle(packed, order))


class Table:
    """A 256-entry table in four registers, for int8 indices; flipped: what it gives is 128 more, as unsigned bytes."""

    def __init__(self, lut: tirx.Buffer, flipped: bool = False) -> None:
        # Entry 0 belongs to -128: as unsigned bytes, 0 .. 127 are in the second half and 128 .. 255 in the first.
        self.quarters = [load(lut, [64 * i], x86.ZMM_BYTES) for i in range(4)]
        if flipped:
            flips = x86.splat(-128, "int8", x86.ZMM_BYTES)
            self.quarters = [bind("entries", quarter ^ flips) for quarter in self.quarters]

    def __call__(self, q: Expr) -> Expr:
        """Return the entries of int8x64 `q`."""
        negative = x86.lookup_128(self.quarters[0], self.quarters[1], q)
        positive = x86.lookup_128(self.quarters[2], self.quarters[3], q)
        return tirx.Select(q < x86.splat(0, "int8", x86.ZMM_BYTES), negative, positive)


def store_bytes(buffer: tirx.Buffer, indices: Sequence[Expr | int], value: Expr, count: int) -> None:
    """Emit the store of the first `count` bytes of an int8x64."""
    store(buffer, indices, value if count == x86.ZMM_BYTES else x86.shuffle(value, list(range(count))), count)


class Epilogue:
    """The epilogue of a matrix product: none, lut or residual (see kernels.epilogue), or float32 logits.

    qp, mult (padded to whole vectors) and extra are the kernel's arguments. zero_point and table: qp[1] and the table
    where they are at hand already.
    """

    def __init__(
        self,
        kind: str,
        mult: tirx.Buffer,
        qp: tirx.Buffer,
        extra: Sequence[tirx.Buffer],
        y: tirx.Buffer,
        zero_point: Expr | None = None,
        table: Table | None = None,
    ) -> None:
        self.kind, self.mult, self.extra, self.y = kind, mult, extra, y
        self.is_float = str(y.dtype) == "float32"
        self.zero_point = zero_point if self.is_float or zero_point is not None else bind("zp_out", qp[1])
        self.table = table or (Table(extra[0]) if kind == "lut" else None)

    def emit(self, sums: Sequence[Expr], position: Sequence[Expr | int], channel: Expr | int, count: int) -> None:
        """Emit the results of `count` channels from `channel` (of `mult`) at `position` (indices of y)."""
        multipliers = [load(self.mult, [channel + LANES * v], LANES) for v in range(len(sums))]
        if self.is_float:
            for v, (total, multiplier) in enumerate(zip(sums, multipliers, strict=True)):
                lanes = min(LANES, count - LANES * v)
                value = total.astype("float32x16") * multiplier
                value = value if lanes == LANES else x86.shuffle(value, list(range(lanes)))
                store(self.y, [*position[:-1], position[-1] + LANES * v], value, lanes)
            return
        if self.kind == "residual":
            store_bytes(self.y, position, self._residual(sums, multipliers, position, count), count)
            return
        out = requantize(sums, multipliers, self.zero_point)
        if self.table is not None:
            out = self.table(bind("q", out))
        store_bytes(self.y, position, out, count)

    def _residual(
        self, sums: Sequence[Expr], multipliers: Sequence[Expr], position: Sequence[Expr | int], count: int
    ) -> Expr:
        r, rp, rs = self.extra
        limit = float(rq.FIXED_LIMIT)
        totals = []
        for v, (total, multiplier) in enumerate(zip(sums, multipliers, strict=True)):
            lanes = min(LANES, count - LANES * v)
            residual = x86.widen(load(r, [*position[:-1], position[-1] + LANES * v], lanes), lanes, LANES)
            scaled = total.astype("float32x16") * multiplier
            scaled = tirx.max(scaled, x86.splat(-limit, "float32", LANES))
            fixed = x86.round_half_even(tirx.min(scaled, x86.splat(limit, "float32", LANES)))
            centred = residual.astype("int32x16") - x86.splat(rp[0], "int32", LANES)
            totals.append(fixed + centred * x86.splat(rp[1], "int32", LANES))
        return requantize(totals, [x86.splat(rs[0], "float32", LANES)] * len(totals), self.zero_point)
