"""xca_scores on Armv7 NEON: Gram matrix and norms by int16 multiply-adds over tokens, then the softmax row by row."""

from __future__ import annotations

from tvm import tirx
from tvm.tirx import Expr
from tvm.tirx.script.builder import ir as T

from ...intrinsics import armv7_neon as neon
from ...intrinsics.arm_neon import shuffle, splat
from ...kernels import XcaScores
from ...kernels.xca_scores import LOGIT_FRACTION_BITS, MAX_EXPONENT, TABLE_FRACTION_BITS
from ..arm64.function import Registers, bind, build_function, loop, store_vector
from ..space import Decisions, Knob, Space
from . import epilogue as ep

CHANNELS = 8
"""Keys of a tile: two registers of sums a query."""
QUERIES = (2, 4)
BEST_QUERIES = 4


def xca_scores_space(kernel: XcaScores, func: tirx.PrimFunc) -> Space | None:
    """Return the kernel's space; None for heads of fewer than eight channels."""
    if kernel.d < CHANNELS:
        return None

    def build(decisions: Decisions) -> tirx.PrimFunc:
        return build_function(func, _XcaScores(kernel, decisions["queries"]).body)

    return Space("armv7_neon.xca_scores", build, (Knob("queries", QUERIES, BEST_QUERIES),))


class _XcaScores:
    """A tile's last channels may overlap the tile before, which gives them the same sums again."""

    def __init__(self, kernel: XcaScores, queries: int) -> None:
        self.kernel, self.d, self.queries = kernel, kernel.d, queries

    def body(self, **b: tirx.Buffer) -> None:
        d = self.d
        with loop(self.kernel.heads, "head", parallel=True) as head:
            zero_point = bind(splat(b["zp"][0].astype("int8"), CHANNELS), "zp")
            blocks = -(-d // CHANNELS)
            with loop(blocks, "keys") as k, loop(-(-d // self.queries), "queries") as q:
                key = bind(tirx.min(k * CHANNELS, d - CHANNELS), "key")
                self._gram_tile(b, head, bind(tirx.min(q * self.queries, d - self.queries), "query"), key, zero_point)
            for kind in range(2):
                with loop(blocks, "norms") as block:
                    channel = bind(tirx.min(block * CHANNELS, d - CHANNELS), "channel")
                    self._norms(b, head, kind, channel, zero_point)
            self._softmax(b, head)

    def _load(self, b: dict[str, tirx.Buffer], token: Expr, channel: Expr, zero_point: Expr) -> tirx.Var:
        """int16x8 x - zp."""
        value = b["qkv"].vload([token, channel], f"int8x{CHANNELS}").astype(f"int16x{CHANNELS}")
        return bind(value - zero_point.astype(f"int16x{CHANNELS}"), "x")

    def _gram_tile(self, b: dict[str, tirx.Buffer], head: Expr, query: Expr, key: Expr, zero_point: Expr) -> None:
        kernel, d = self.kernel, self.d
        sums = Registers("sums", 2 * self.queries, "int32x4")
        for index in range(sums.count):
            sums.set(index, splat(tirx.const(0, "int32"), 4))
        with loop(kernel.t, "token") as token:
            keys = self._load(b, token, kernel.c + head * d + key, zero_point)
            # Eight are read, of which a tile uses the first: behind the queries of a row lie its keys.
            queries = self._load(b, token, head * d + query, zero_point)
            for i in range(self.queries):
                factor = shuffle([queries], [i] * 4)
                for half, part in enumerate((neon.low(keys, 4), neon.high(keys, 4))):
                    index = 2 * i + half
                    sums.set(index, sums.get(index) + neon.vmull(part, factor))
        for i in range(self.queries):
            for half in range(2):
                store_vector(b["gram"], [head * d + query + i, key + 4 * half], sums.get(2 * i + half), 4)

    def _norms(self, b: dict[str, tirx.Buffer], head: Expr, kind: int, channel: Expr, zero_point: Expr) -> None:
        kernel = self.kernel
        at = head * self.d + channel
        sums = Registers("squares", 2, "int32x4")
        for half in range(2):
            sums.set(half, splat(tirx.const(0, "int32"), 4))
        with loop(kernel.t, "token") as token:
            x = self._load(b, token, kind * kernel.c + at, zero_point)
            for half, part in enumerate((neon.low(x, 4), neon.high(x, 4))):
                sums.set(half, sums.get(half) + neon.vmull(part, part))
        for half in range(2):
            store_vector(b["norms"], [kind, at + 4 * half], sums.get(half), 4)

    def _softmax(self, b: dict[str, tirx.Buffer], head: Expr) -> None:
        d = self.d
        inverse = [T.alloc_buffer((d,), "float32") for _ in range(2)]
        logits = T.alloc_buffer((d,), "int32")
        row_max = T.alloc_buffer((1,), "int32")
        one = tirx.const(1, "int32")
        for kind in range(2):
            with loop(d, "i") as i:
                norm = tirx.max(b["norms"][kind, head * d + i], one).astype("float32")
                T.buffer_store(inverse[kind], tirx.const(1.0, "float32") / tirx.sqrt(norm), [i])
        with loop(d, "i") as i:
            scale = bind(splat(b["tau"][head] * inverse[0][i], 4), "scale")
            largest = Registers("largest", 1, "int32x4")
            largest.set(0, splat(tirx.const(-(1 << 31), "int32"), 4))

            def add(start: Expr | int, i: Expr = i, scale: Expr = scale, largest: Registers = largest) -> None:
                gram = b["gram"].vload([head * d + i, start], "int32x4")
                f = ep.scaled(gram, scale) * inverse[1].vload([start], "float32x4")
                value = bind(ep.fixed_from_float(f), "logit")
                store_vector(logits, [start], value, 4)
                largest.set(0, neon.maximum(largest.get(0), value))

            with loop(d // 4, "quad") as quad:
                add(quad * 4)
            if d % 4:
                add(d - 4)
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
