"""xca_apply on Armv7 NEON: tokens x channels of a head in registers, the scores widened to int16 once."""

from __future__ import annotations

from tvm import tirx
from tvm.tirx import Expr
from tvm.tirx.script.builder import ir as T

from ...intrinsics import armv7_neon as neon
from ...intrinsics.arm_neon import shuffle, splat
from ...kernels import XcaApply
from ..arm64.function import Registers, bind, build_function, loop, store_vector
from ..space import Decisions, Knob, Space
from ..vector_unit import divisors, largest_divisor
from . import epilogue as ep

CHANNELS = 8
"""Channels of a tile: two registers of sums a token."""
ROWS = (1, 2, 4)
KEYS = 4
"""Keys that one iteration of the innermost loop does."""
CHUNKS = 2
"""Ranges of tokens a head is split into: each widens the scores again."""


def xca_apply_space(kernel: XcaApply, func: tirx.PrimFunc) -> Space | None:
    """Return the kernel's space; None for heads of fewer than eight channels."""
    if kernel.d < CHANNELS:
        return None
    rows = tuple(r for r in ROWS if r in divisors(kernel.t))

    def build(decisions: Decisions) -> tirx.PrimFunc:
        return build_function(func, _XcaApply(kernel, decisions["rows"]).body)

    return Space("armv7_neon.xca_apply", build, (Knob("rows", rows, rows[-1]),))


class _XcaApply:
    """A tile's last channels may overlap the tile before, which gives them the same values again."""

    def __init__(self, kernel: XcaApply, rows: int) -> None:
        self.kernel, self.rows, self.d = kernel, rows, kernel.d
        self.blocks = -(-kernel.d // CHANNELS)

    def body(self, qkv: tirx.Buffer, e: tirx.Buffer, qp: tirx.Buffer, scale: tirx.Buffer, y: tirx.Buffer) -> None:
        tiles = self.kernel.t // self.rows
        chunks = largest_divisor(tiles, CHUNKS)
        with loop(self.kernel.heads * chunks, "part", parallel=True) as part:
            head = bind(tirx.floordiv(part, chunks), "head")
            wide = T.alloc_buffer((self.blocks * self.d * CHANNELS,), "int16")
            start = T.alloc_buffer((self.blocks * CHANNELS,), "int32")
            mult = T.alloc_buffer((self.blocks * CHANNELS,), "float32")
            with loop(self.blocks, "block") as block:
                self._prepare(e, qp, scale, head, block, wide, start, mult)
            requantize = ep.Requantize.to(qp[1])
            with loop(tiles // chunks, "tile") as tile, loop(self.blocks, "block") as block:
                row = (tirx.floormod(part, chunks) * (tiles // chunks) + tile) * self.rows
                self._tile(qkv, y, requantize, head, row, block, wide, start, mult)

    def _channel(self, block: Expr) -> Expr:
        return tirx.min(block * CHANNELS, self.d - CHANNELS)

    def _prepare(
        self,
        e: tirx.Buffer,
        qp: tirx.Buffer,
        scale: tirx.Buffer,
        head: Expr,
        block: Expr,
        wide: tirx.Buffer,
        start: tirx.Buffer,
        mult: tirx.Buffer,
    ) -> None:
        """Widen the scores of a block of channels; -zp_v times their sums, and scale over their sums."""
        totals = Registers("totals", 1, "int16x8")
        totals.set(0, splat(tirx.const(0, "int16"), 8))
        channel = bind(self._channel(block), "channel")
        with loop(self.d, "key") as key:
            # At most 256 scores of at most 127: their sum fits int16.
            value = bind(e.vload([head, key, channel], f"int8x{CHANNELS}").astype("int16x8"), "e")
            store_vector(wide, [(block * self.d + key) * CHANNELS], value, CHANNELS)
            totals.set(0, totals.get(0) + value)
        with loop(CHANNELS, "i") as i:
            total = bind(totals.buffer[i].astype("int32"), "total")
            T.buffer_store(start, tirx.const(0, "int32") - qp[0] * total, [block * CHANNELS + i])
            T.buffer_store(mult, scale[0] / total.astype("float32"), [block * CHANNELS + i])

    def _tile(
        self,
        qkv: tirx.Buffer,
        y: tirx.Buffer,
        requantize: ep.Requantize,
        head: Expr,
        row: Expr,
        block: Expr,
        wide: tirx.Buffer,
        start: tirx.Buffer,
        mult: tirx.Buffer,
    ) -> None:
        d = self.d
        sums = Registers("sums", 2 * self.rows, "int32x4")
        starts = [bind(start.vload([block * CHANNELS + 4 * q], "int32x4"), "start") for q in range(2)]
        for index in range(sums.count):
            sums.set(index, starts[index % 2])
        first = 2 * self.kernel.c + head * d

        def add(key: Expr | int, at: Expr | int, lanes: range) -> None:
            # Four values a row from `at` on, of which those in `lanes` count, for keys from `key` on.
            values = [bind(qkv.vload([row + r, first + at], "int8x4").astype("int16x4"), "v") for r in range(self.rows)]
            for i, lane in enumerate(lanes):
                scores = bind(wide.vload([(block * d + key + i) * CHANNELS], "int16x8"), "e")
                for r, value in enumerate(values):
                    factor = shuffle([value], [lane] * 4)
                    for q, part in enumerate((neon.low, neon.high)):
                        index = 2 * r + q
                        sums.set(index, sums.get(index) + neon.vmull(part(scores, 4), factor))

        with loop(d // KEYS, "keys") as k:
            add(k * KEYS, k * KEYS, range(KEYS))
        if d % KEYS:
            add(d - d % KEYS, d - KEYS, range(KEYS - d % KEYS, KEYS))
        mults = [bind(mult.vload([block * CHANNELS + 4 * q], "float32x4"), "mult") for q in range(2)]
        channel = head * d + self._channel(block)
        for r in range(self.rows):
            values = [ep.scaled(sums.get(2 * r + q), mults[q]) for q in range(2)]
            store_vector(y, [row + r, channel], requantize.eight(*values), CHANNELS)
