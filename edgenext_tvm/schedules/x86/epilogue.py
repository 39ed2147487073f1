"""From int32 sums in registers to int8 or int16 in memory: up to four vectors of one row become one vector of bytes.

The clamp that the kernels state in float is done by saturating packs. The float limit stays above: vcvtps2dq returns
-2^31 for what does not fit, which is right below and would be wrong above. Adding the zero point to int16 saturates
as well, and a sum that saturates there is out of the int8 range on the same side. It is out of a wide tensor's 12 bits
too, to which a minimum and a maximum of int16 clamp.
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx
from tvm.tirx import Expr

from ...intrinsics import x86
from ...kernels import requantize as rq
from ...kernels.epilogue import WIDE_RESIDUAL_BITS
from ...kernels.wide import QRANGE
from .emit import LANES, bind, load, store

MAX_VECTORS = 4
LARGEST = float(1 << 30)
"""Anything from 2^9 on saturates; this is far from both limits."""


def requantize(sums: Sequence[Expr], multipliers: Sequence[Expr], zero_point: Expr) -> Expr:
    """Return int8x64: 16 channels of each of 1 to 4 int32x16 in order, the rest undefined; `requant` of kernels."""
    return narrow(rounded_products(sums, multipliers), zero_point)


def rounded_products(sums: Sequence[Expr], multipliers: Sequence[Expr]) -> list[Expr]:
    """Return int32x16 of each sum times its multiplier, rounded half to even, -2^31 below int32 and LARGEST above."""
    rounded = []
    for total, multiplier in zip(sums, multipliers, strict=True):
        scaled = total.astype("float32x16") * multiplier
        rounded.append(x86.round_half_even(tirx.min(scaled, x86.splat(LARGEST, "float32", LANES))))
    return rounded


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


def narrow_to_wide(low: Expr, high: Expr, zero_point: Expr) -> Expr:
    """Return int16x32: two int32x16 in order plus the zero point, saturated at the range of a wide tensor."""
    lanes = 2 * LANES
    total = x86.add_saturated(x86.pack_int32(low, high), x86.splat(zero_point.astype("int16"), "int16", lanes))
    smallest, largest = (x86.splat(bound, "int16", lanes) for bound in QRANGE["int16"])
    # Packs work per lane of 128 bits: qword 2 L + v holds channels 4 L .. 4 L + 3 of vector v.
    packed = x86.as_type("int64x8", tirx.min(tirx.max(total, smallest), largest))
    return x86.as_type("int16x32", x86.shuffle(packed, [0, 2, 4, 6, 1, 3, 5, 7]))


def store_requantized(
    y: tirx.Buffer,
    position: Sequence[Expr | int],
    sums: Sequence[Expr],
    multipliers: Sequence[Expr],
    zero_point: Expr,
    count: int,
) -> None:
    """Emit `requant` of `count` channels of 1 to 4 int32x16 and the store at `position` of y, int8 or int16 (wide)."""
    if str(y.dtype) == "int8":
        store_bytes(y, position, requantize(sums, multipliers, zero_point), count)
        return
    rounded = rounded_products(sums, multipliers)
    *outer, first = position
    for v in range(0, len(rounded), 2):
        value = narrow_to_wide(rounded[v], rounded[min(v + 1, len(rounded) - 1)], zero_point)
        lanes = min(2 * LANES, count - LANES * v)
        value = value if lanes == 2 * LANES else x86.shuffle(value, list(range(lanes)))
        store(y, [*outer, first + LANES * v], value, lanes)


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
            sums = self._with_residual(sums, multipliers, position, count)
            multipliers = [x86.splat(self.extra[2][0], "float32", LANES)] * len(sums)
        if self.table is not None:
            out = self.table(bind("q", requantize(sums, multipliers, self.zero_point)))
            store_bytes(self.y, position, out, count)
            return
        store_requantized(self.y, position, sums, multipliers, self.zero_point, count)

    def _with_residual(
        self, sums: Sequence[Expr], multipliers: Sequence[Expr], position: Sequence[Expr | int], count: int
    ) -> list[Expr]:
        r, rp, _ = self.extra
        is_wide = "int16" in (str(r.dtype), str(self.y.dtype))
        limit = float(rq.FIXED_LIMIT)
        totals = []
        for v, (total, multiplier) in enumerate(zip(sums, multipliers, strict=True)):
            lanes = min(LANES, count - LANES * v)
            residual = x86.widen(load(r, [*position[:-1], position[-1] + LANES * v], lanes), lanes, LANES)
            scaled = total.astype("float32x16") * multiplier
            scaled = tirx.max(scaled, x86.splat(-limit, "float32", LANES))
            fixed = x86.round_half_even(tirx.min(scaled, x86.splat(limit, "float32", LANES)))
            if is_wide:
                fixed = fixed << x86.splat(WIDE_RESIDUAL_BITS, "int32", LANES)
            centred = residual.astype("int32x16") - x86.splat(rp[0], "int32", LANES)
            totals.append(fixed + centred * x86.splat(rp[1], "int32", LANES))
        return totals
