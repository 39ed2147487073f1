"""xca_scores on AArch64: Gram matrix and norms by int16 multiply-adds over tokens, then the softmax row by row."""

from __future__ import annotations

from tvm import tirx
from tvm.tirx import Expr
from tvm.tirx.script.builder import ir as T

from ...intrinsics import arm_neon as neon
from ...kernels import XcaScores
from ...kernels import requantize as rq
from ...kernels.xca_scores import LOGIT_FRACTION_BITS, MAX_EXPONENT, TABLE_FRACTION_BITS
from ..space import Decisions, Knob, Space
from ..vector_unit import divisors
from .function import Registers, bind, build_function, loop, store_vector

CHANNELS = 8
"""Channels loaded at once: one register of int16."""
QUERIES = (4, 8)
MAX_SUMS = 24
MAX_KEY_BLOCKS = 3
"""Blocks of eight keys in a tile: with four queries 24 registers of sums."""
TOKENS = 4


def xca_scores_space(kernel: XcaScores, func: tirx.PrimFunc, _: frozenset[str], family: str) -> Space | None:
    """Return the kernel's space, or None for heads of fewer than eight channels.

    queries  query channels of a tile
    keys     at most so many blocks of eight key channels in a tile
    tokens   tokens an iteration of the innermost loop
    """
    if kernel.d < CHANNELS:
        return None
    blocks = -(-kernel.d // CHANNELS)
    keys = tuple(range(1, min(blocks, MAX_KEY_BLOCKS) + 1))
    tokens = tuple(d for d in divisors(kernel.t) if d <= TOKENS)
    knobs = (Knob("queries", QUERIES, 4), Knob("keys", keys, keys[-1]), Knob("tokens", tokens, 1))

    def build(d: Decisions) -> tirx.PrimFunc:
        return build_function(func, _XcaScores(kernel, d["queries"], d["keys"], d["tokens"]).body)

    return Space(family, build, knobs, lambda d: d["queries"] * d["keys"] * 2 <= MAX_SUMS)


class _XcaScores:
    """A tile's last channels may overlap the tile before, which gives them the same sums again."""

    def __init__(self, kernel: XcaScores, queries: int, key_blocks: int, tokens: int) -> None:
        self.kernel, self.d = kernel, kernel.d
        self.queries, self.key_blocks, self.tokens = queries, key_blocks, tokens

    def body(self, **b: tirx.Buffer) -> None:
        with loop(self.kernel.heads, "head", parallel=True) as head:
            zero_point = bind(neon.splat(b["zp"][0].astype("int8"), CHANNELS), "zp")
            blocks = -(-self.d // CHANNELS)
            tiles = -(-blocks // self.key_blocks)
            for t in range(tiles):
                first, last = blocks * t // tiles, blocks * (t + 1) // tiles
                starts = [min(block * CHANNELS, self.d - CHANNELS) for block in range(first, last)]
                with loop(-(-self.d // self.queries), "queries") as q:
                    query = bind(tirx.min(q * self.queries, self.d - self.queries), "query")
                    self._gram_tile(b, head, query, starts, zero_point)
            for kind in range(2):
                with loop(blocks, "norms") as block:
                    channel = bind(tirx.min(block * CHANNELS, self.d - CHANNELS), "channel")
                    self._norms(b, head, kind, channel, zero_point)
            self._softmax(b, head)

    def _load(self, b: dict[str, tirx.Buffer], token: Expr, channel: Expr, zero_point: Expr, lanes: int) -> tirx.Var:
        """int16 x - zp."""
        value = b["qkv"].vload([token, channel], f"int8x{lanes}").astype(f"int16x{lanes}")
        zero = zero_point if lanes == CHANNELS else neon.low(zero_point, lanes)
        return bind(value - zero.astype(f"int16x{lanes}"), "x")

    def _gram_tile(
        self, b: dict[str, tirx.Buffer], head: Expr, query: Expr, starts: list[int], zero_point: Expr
    ) -> None:
        kernel = self.kernel
        width = 2 * len(starts)
        sums = Registers("sums", self.queries * width, "int32x4")
        for index in range(sums.count):
            sums.set(index, neon.splat(tirx.const(0, "int32"), 4))
        with loop(kernel.t // self.tokens, "tokens") as outer:
            for token in (outer * self.tokens + u for u in range(self.tokens)):
                queries = self._load(b, token, head * self.d + query, zero_point, self.queries)
                for block, start in enumerate(starts):
                    keys = self._load(b, token, kernel.c + head * self.d + start, zero_point, CHANNELS)
                    for i in range(self.queries):
                        factor = neon.shuffle([queries], [i] * 4)
                        for half, part in enumerate((neon.low(keys, 4), neon.high(keys, 4))):
                            index = i * width + 2 * block + half
                            sums.set(index, sums.get(index) + neon.smull(part, factor))
        for i in range(self.queries):
            for block, start in enumerate(starts):
                for half in range(2):
                    where = [head * self.d + query + i, start + 4 * half]
                    store_vector(b["gram"], where, sums.get(i * width + 2 * block + half), 4)

    def _norms(self, b: dict[str, tirx.Buffer], head: Expr, kind: int, channel: Expr, zero_point: Expr) -> None:
        kernel = self.kernel
        at = head * self.d + channel
        sums = Registers("squares", 2, "int32x4")
        for half in range(2):
            sums.set(half, neon.splat(tirx.const(0, "int32"), 4))
        with loop(kernel.t, "token") as token:
            x = self._load(b, token, kind * kernel.c + at, zero_point, CHANNELS)
            for half, part in enumerate((neon.low(x, 4), neon.high(x, 4))):
                sums.set(half, sums.get(half) + neon.smull(part, part))
        for half in range(2):
            store_vector(b["norms"], [kind, at + 4 * half], sums.get(half), 4)

    def _softmax(self, b: dict[str, tirx.Buffer], head: Expr) -> None:
        d = self.d
        inverse = [T.alloc_buffer((d,), "float32") for _ in range(2)]
        logits = T.alloc_buffer((d,), "int32")
        row_max = T.alloc_buffer((1,), "int32")
        one = tirx.const(1, "int32")
        for kind in range(2):
            for start, lanes in self._vectors():
                norm = tirx.max(b["norms"].vload([kind, head * d + start], f"int32x{lanes}"), neon.splat(one, lanes))
                root = tirx.sqrt(norm.astype(f"float32x{lanes}"))
                store_vector(inverse[kind], [start], neon.splat(tirx.const(1.0, "float32"), lanes) / root, lanes)
        with loop(d, "i") as i:
            scale = bind(b["tau"][head] * inverse[0][i], "scale")
            largest = Registers("largest", 1, "int32x4")
            largest.set(0, neon.splat(tirx.const(-(1 << 31), "int32"), 4))
            for start, _ in self._vectors():
                gram = b["gram"].vload([head * d + i, start], "int32x4")
                f = gram.astype("float32x4") * neon.splat(scale, 4) * inverse[1].vload([start], "float32x4")
                limit = neon.splat(tirx.const(float(rq.FIXED_LIMIT), "float32"), 4)
                f = tirx.min(tirx.max(f, neon.splat(tirx.const(-float(rq.FIXED_LIMIT), "float32"), 4)), limit)
                value = bind(neon.round_to_int32(f), "logit")
                store_vector(logits, [start], value, 4)
                largest.set(0, tirx.max(largest.get(0), value))
            values = [largest.buffer[lane] for lane in range(4)]
            T.buffer_store(row_max, tirx.max(tirx.max(values[0], values[1]), tirx.max(values[2], values[3])), [0])
            with loop(d, "j") as j:
                diff = bind(row_max[0] - logits[j], "diff")
                exponent = bind(
                    tirx.min(diff >> LOGIT_FRACTION_BITS, tirx.const(MAX_EXPONENT, "int32")) + TABLE_FRACTION_BITS,
                    "exponent",
                )
                mantissa = b["exp_table"][diff & 255] + (one << (exponent - 1))
                T.buffer_store(b["e"], (mantissa >> exponent).astype("int8"), [head, j, i])

    def _vectors(self) -> list[tuple[int, int]]:
        """(first channel, 4) of vectors that cover a head; the last may overlap."""
        return [(min(start, self.d - 4), 4) for start in range(0, self.d, 4)]
