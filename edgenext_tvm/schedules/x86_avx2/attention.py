"""Cross-covariance attention by vpmaddwd: two tokens (scores) or two key channels (apply) meet in one instruction."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from ...intrinsics import x86_avx2 as avx2
from ...kernels import XcaApply, XcaScores
from ...kernels import requantize as rq
from ...kernels.xca_scores import LOGIT_FRACTION_BITS, MAX_EXPONENT, TABLE_FRACTION_BITS
from ..vector_unit import divisors, largest_divisor
from ..x86.emit import Expr, Register, bind, build_function, load, store
from .epilogue import LANES, MAX_VECTORS, constant, requantize, slice_bytes
from .left_operand import Source, expand_rows
from .matmul import accumulate
from .products import PAIRS

GROUP = 2
KEYS = 4
"""Key channels whose products with all vectors of a panel of query channels are summed at once."""
PANEL = 2
"""Vectors of query channels of a panel."""
MAX_ROWS = 4
MIN_PARALLEL = 8
MAX_HEAD_CHANNELS = 62
"""The pairs of weights of eight query channels stay on the stack: at most 31 vectors."""


def is_supported(kernel: XcaScores | XcaApply) -> bool:
    """Return whether a head fits: loads of 8 channels stay inside a token, and weights on the stack."""
    return GROUP <= kernel.d <= MAX_HEAD_CHANNELS and kernel.c >= LANES


def interleave(rows: list[Expr]) -> Expr:
    """Return int32x8: half b of element c is element c of rows[b], two int8x8."""
    order = [tirx.const(LANES * b + c, "int32") for c in range(LANES) for b in range(GROUP)]
    return avx2.as_type("int32x8", tirx.Shuffle(rows, order).astype("int16x16"))


def lanes_of(vector: int, d: int) -> int:
    """Return how many channels of a head vector number `vector` holds."""
    return min(LANES, d - LANES * vector)


def build_xca_scores(kernel: XcaScores, func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Return `func` for AVX2: one parallel iteration per head; the workspaces hold the same values transposed."""
    return build_function(kernel, func, lambda *buffers: _Scores(kernel, buffers).emit())


class _Scores:
    """Vectors hold query channels, a loop runs over key channels: so e is stored as it is computed."""

    head: Expr
    first: Expr

    def __init__(self, kernel: XcaScores, buffers: tuple[tirx.Buffer, ...]) -> None:
        self.kernel, self.d = kernel, kernel.d
        self.qkv, zp, self.tau, self.table, self.e, self.gram, self.norms = buffers
        self.zero_point = avx2.splat(zp[0], "int32", LANES)
        self.vectors = -(-self.d // LANES)

    def emit(self) -> None:
        """Emit everything."""
        with T.parallel(self.kernel.heads) as self.head:
            self.first = bind("first", self.head * self.d)
            for vector in range(self.vectors):
                self.key_sums(vector)
            if self.d >= KEYS:
                with T.serial(self.d // KEYS) as tile:
                    self.gram_tile(bind("key", tile * KEYS), KEYS)
            if self.d % KEYS:
                self.gram_tile(tirx.const(self.d - self.d % KEYS, "int32"), self.d % KEYS)
            for vector in range(self.vectors):
                self.softmax(vector)

    def over_tokens(self, step: Callable[[Expr | int, int], None]) -> None:
        """Emit step(first token, how many of the two exist) over all tokens."""
        groups, rest = divmod(self.kernel.t, GROUP)
        if groups:
            with T.serial(groups) as group:
                step(group * GROUP, GROUP)
        if rest:
            step(groups * GROUP, rest)

    def tokens(self, token: Expr | int, count: int, channel: Expr) -> Expr:
        """Emit 8 channels of two tokens, interleaved; a token that does not exist is 0."""
        rows = [load(self.qkv, [token + b, channel], LANES) for b in range(count)]
        return bind("tokens", interleave(rows + [avx2.splat(0, "int8", LANES)] * (GROUP - count)))

    def channel_sums(self, part: int, vector: int) -> tuple[Expr, Expr]:
        """Emit the sums over tokens of q (part 0) or k and of (q - zp)^2, int32x8 each."""
        total, square = Register("total", lanes=LANES), Register("square", lanes=LANES)
        for register in (total, square):
            register.set(constant(0))

        def step(token: Expr | int, count: int) -> None:
            q = self.tokens(token, count, self.first + part * self.kernel.c + vector * LANES)
            total.set(avx2.dot_int16(total.get(), avx2.splat(1, "int16", 2 * LANES), q))
            square.set(avx2.dot_int16(square.get(), q, q))

        self.over_tokens(step)
        s, z = bind("s", total.get()), self.zero_point
        return s, bind("squares", square.get() - z * s * constant(2) + z * z * constant(self.kernel.t))

    def key_sums(self, vector: int) -> None:
        """Emit what the logits need per key: zp^2 T - zp * (sum of k), and the inverse norm."""
        s, squares = self.channel_sums(1, vector)
        z = self.zero_point
        missing = z * z * constant(self.kernel.t) - s * z
        for row, value in ((0, missing), (1, avx2.as_type("int32x8", self.inverse(squares)))):
            position = [row, self.first + vector * LANES]
            self.store_lanes(self.norms, position, bind("per_key", value), lanes_of(vector, self.d))

    def gram_tile(self, key: Expr, keys: int) -> None:
        """Emit gram[key .. key + keys, all queries] = sum over tokens of q * k."""
        for panel in range(0, self.vectors, PANEL):
            vectors = range(panel, min(panel + PANEL, self.vectors))
            sums = {(j, v): Register(f"sum_{j}_{v}", lanes=LANES) for j in range(keys) for v in vectors}
            for register in sums.values():
                register.set(constant(0))
            self.sum_products(key, keys, vectors, sums)
            for (j, v), register in sums.items():
                position = [self.first + key + j, v * LANES]
                self.store_lanes(self.gram, position, register.get(), lanes_of(v, self.d))

    def sum_products(self, key: Expr, keys: int, vectors: range, sums: dict[tuple[int, int], Register]) -> None:
        """Emit the loop over tokens of one tile."""
        broadcast = Register("keys", lanes=LANES)

        def step(token: Expr | int, count: int) -> None:
            broadcast.set(self.tokens(token, count, self.first + self.kernel.c + key))
            queries = [self.tokens(token, count, self.first + v * LANES) for v in vectors]
            for j in range(keys):
                k = avx2.splat(broadcast.buffer[j], "int32", LANES)
                for q, v in zip(queries, vectors, strict=True):
                    sums[j, v].set(avx2.dot_int16(sums[j, v].get(), q, k))

        self.over_tokens(step)

    @staticmethod
    def store_lanes(buffer: tirx.Buffer, indices: list[Expr | int], value: Expr, lanes: int) -> None:
        store(buffer, indices, value if lanes == LANES else avx2.shuffle(value, list(range(lanes))), lanes)

    def softmax(self, vector: int) -> None:
        """Emit the logits of eight query channels, their maximum, and e."""
        s, squares = self.channel_sums(0, vector)
        offset = bind("offset", s * self.zero_point)
        scale = bind("scale", avx2.splat(self.tau[self.head], "float32", LANES) * self.inverse(squares))
        lanes, channel = lanes_of(vector, self.d), vector * LANES
        largest = Register("largest", lanes=LANES)
        largest.set(constant(-(1 << 31)))
        limit = float(rq.FIXED_LIMIT)
        with T.serial(self.d) as j:
            key = self.first + j
            inverse = avx2.splat(tirx.reinterpret("float32", self.norms[1, key]), "float32", LANES)
            g = self.load_gram(key, channel, lanes) - offset + avx2.splat(self.norms[0, key], "int32", LANES)
            f = g.astype("float32x8") * scale * inverse
            f = tirx.min(tirx.max(f, avx2.splat(-limit, "float32", LANES)), avx2.splat(limit, "float32", LANES))
            logit = bind("logit", avx2.round_half_even(f))
            largest.set(tirx.max(largest.get(), logit))
            self.store_lanes(self.gram, [key, channel], logit, lanes)
        with T.serial(self.d) as j:
            diff = bind("diff", largest.get() - self.load_gram(self.first + j, channel, lanes))
            exponent = bind("exponent", tirx.min(diff >> constant(LOGIT_FRACTION_BITS), constant(MAX_EXPONENT)))
            entry = avx2.gather_int32(self.table, diff & constant(255))
            mantissa = entry + (constant(1) << (exponent + constant(TABLE_FRACTION_BITS - 1)))
            weights = (mantissa >> (exponent + constant(TABLE_FRACTION_BITS))).astype("int8x8")
            self.store_lanes(self.e, [self.head, j, channel], bind("weights", weights), lanes)

    def load_gram(self, key: Expr, channel: int, lanes: int) -> Expr:
        return avx2.widen(load(self.gram, [key, channel], lanes), lanes, LANES)

    @staticmethod
    def inverse(squares: Expr) -> Expr:
        """Return 1 / sqrt(max(sum of squares, 1)) as float32x8."""
        norm = tirx.max(squares, constant(1)).astype("float32x8")
        return avx2.splat(1.0, "float32", LANES) / tirx.sqrt(norm)


@dataclasses.dataclass(frozen=True)
class HeadWeights:
    """A head's weights as pairs of int16 [step, 8, 2] per vector of query channels, with what their sums start from."""

    pairs: list[tirx.Buffer]
    begins: list[Register]
    multipliers: list[Register]

    def start(self, vector: int) -> Expr:
        """Return int32x8: minus the zero point's share."""
        return self.begins[vector].get()

    def step(self, vector: int, step: Expr) -> Expr:
        """Return int16x16 of two key channels."""
        return load(self.pairs[vector], [step * 2 * LANES], 2 * LANES)


def load_head(kernel: XcaApply, e: tirx.Buffer, qp: tirx.Buffer, scale: tirx.Buffer, head: Expr) -> HeadWeights:
    """Emit the widening and pairing of one head's weights."""
    d, steps = kernel.d, -(-kernel.d // GROUP)
    found = HeadWeights([], [], [])
    for vector in range(-(-d // LANES)):
        pairs = T.alloc_buffer((steps * 2 * LANES,), "int16")
        IRBuilder.name("pairs", pairs)
        lanes = lanes_of(vector, d)
        total = Register("total", lanes=LANES)
        total.set(constant(0))

        def pair(
            step: Expr | int,
            count: int,
            vector: int = vector,
            lanes: int = lanes,
            pairs: tirx.Buffer = pairs,
            total: Register = total,
        ) -> None:
            rows = [
                avx2.widen(load(e, [head, step * GROUP + b, vector * LANES], lanes), lanes, LANES) for b in range(count)
            ]
            words = bind("weights", interleave(rows + [avx2.splat(0, "int8", LANES)] * (GROUP - count)))
            store(pairs, [step * 2 * LANES], avx2.as_type("int16x16", words), 2 * LANES)
            total.set(avx2.dot_int16(total.get(), words, avx2.splat(1, "int16", 2 * LANES)))

        with T.serial(d // GROUP) as step:
            pair(step, GROUP)
        if d % GROUP:
            pair(d // GROUP, 1)
        begin, multiplier = Register("begin", lanes=LANES), Register("multiplier", "float32", LANES)
        begin.set(constant(0) - total.get() * avx2.splat(qp[0], "int32", LANES))
        multiplier.set(avx2.splat(scale[0], "float32", LANES) / total.get().astype("float32x8"))
        found.pairs.append(pairs)
        found.begins.append(begin)
        found.multipliers.append(multiplier)
    return found


def build_xca_apply(kernel: XcaApply, func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Return `func` for AVX2: per head, its weights paired once per chunk of tokens and its values widened once."""
    d, vectors = kernel.d, -(-kernel.d // LANES)
    rows = max(r for r in divisors(kernel.t) if r <= MAX_ROWS)
    tiles = kernel.t // rows
    group = largest_divisor(tiles, max(1, tiles // MIN_PARALLEL))
    width = PAIRS.sums // rows

    def body(*buffers: tirx.Buffer) -> None:
        qkv, e, qp, scale, y = buffers
        zero_point = bind("zp_out", qp[1])
        with T.parallel(tiles // group) as chunk, T.serial(kernel.heads) as head:
            weights = load_head(kernel, e, qp, scale, head)
            source = Source(qkv, 1, d, lambda row, segment: [row, 2 * kernel.c + head * d])
            with T.serial(group) as tile:
                token = bind("token", (chunk * group + tile) * rows)
                wide = expand_rows(PAIRS, source, [token + r for r in range(rows)])
                for first in range(0, vectors, width):
                    panel = range(first, min(first + width, vectors))
                    sums = accumulate(first, len(panel), wide, weights)
                    for r in range(rows):
                        for at in range(0, len(panel), MAX_VECTORS):
                            part = panel[at : at + MAX_VECTORS]
                            totals = [sums[r][v - first].get() for v in part]
                            out = requantize(totals, [weights.multipliers[v].get() for v in part], zero_point)
                            count = min(LANES * len(part), d - LANES * part[0])
                            position = [token + r, head * d + LANES * part[0]]
                            store(y, position, slice_bytes(bind("out", out), 0, count), count)

    return build_function(kernel, func, body)
