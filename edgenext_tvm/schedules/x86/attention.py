"""Cross-covariance attention by vpdpbusd: four tokens (scores) or four key channels (apply) meet in one instruction."""

from __future__ import annotations

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from ...intrinsics import x86
from ...kernels import XcaApply, XcaScores
from ...kernels import requantize as rq
from ...kernels.xca_scores import LOGIT_FRACTION_BITS, MAX_EXPONENT, TABLE_FRACTION_BITS
from ..space import Decisions, Knob, Space
from ..vector_unit import divisors, largest_divisor
from .emit import LANES, Expr, Register, bind, build_function, load, store
from .epilogue import MAX_VECTORS, requantize
from .matmul import vectors_of

GROUP = 4
REGISTERS = 24
FEW_SUMS = 12
MIN_PARALLEL = 4


def is_supported(kernel: XcaScores | XcaApply) -> bool:
    """Return whether a head fits: whole loads of 16 channels stay inside a token, and a row of a head is one store."""
    return GROUP <= kernel.d <= MAX_VECTORS * LANES and kernel.c >= LANES


def constant(value: int) -> Expr:
    """Return int32x16."""
    return x86.splat(value, "int32", LANES)


def interleave(rows: list[Expr]) -> Expr:
    """Return int32x16: byte b of element c is element c of rows[b], four int8x16."""
    order = [tirx.const(LANES * b + c, "int32") for c in range(LANES) for b in range(GROUP)]
    return x86.as_type("int32x16", tirx.Shuffle(rows, order))


def xca_scores_space(kernel: XcaScores, func: tirx.PrimFunc) -> Space:
    """Return the space of attention scores: how many key channels are summed at once."""
    vectors = vectors_of(kernel.d)
    keys = tuple(n for n in divisors(kernel.d) if n * vectors <= REGISTERS and n <= LANES)
    knob = Knob("keys", keys, keys[-1])
    return Space("x86_vnni.xca_scores", lambda d: build_xca_scores(kernel, func, d["keys"]), (knob,))


def build_xca_scores(kernel: XcaScores, func: tirx.PrimFunc, keys: int) -> tirx.PrimFunc:
    """Return `func` for AVX-512: one parallel iteration per head; the workspaces hold the same values transposed."""
    return build_function(kernel, func, lambda *buffers: _Scores(kernel, buffers, keys).emit())


class _Scores:
    """Vectors hold query channels, a loop runs over key channels: so e is stored as it is computed."""

    head: Expr

    def __init__(self, kernel: XcaScores, buffers: tuple[tirx.Buffer, ...], keys: int) -> None:
        self.kernel, self.d, self.keys = kernel, kernel.d, keys
        self.qkv, zp, self.tau, self.table, self.e, self.gram, self.norms = buffers
        self.zero_point = zp[0]
        self.vectors = vectors_of(self.d)
        self.flips = x86.splat(-128, "int8", x86.ZMM_BYTES)

    def emit(self) -> None:
        """Emit everything."""
        with T.parallel(self.kernel.heads) as self.head:
            self.first = bind("first", self.head * self.d)
            sums = [self.channel_sums(part, v) for part in range(2) for v in range(self.vectors)]
            self.gram_tiles()
            self.softmax(sums[: self.vectors], sums[self.vectors :])

    def lanes(self, vector: int) -> int:
        return min(LANES, self.d - LANES * vector)

    def over_tokens(self, step) -> None:
        """Emit step(first token, how many of the four exist) over all tokens."""
        groups, rest = divmod(self.kernel.t, GROUP)
        if groups:
            with T.serial(groups) as group:
                step(group * GROUP, GROUP)
        if rest:
            step(groups * GROUP, rest)

    def tokens(self, token: Expr | int, count: int, channel: Expr) -> Expr:
        """Emit 16 channels of four tokens, interleaved; tokens that do not exist are 0."""
        rows = [load(self.qkv, [token + b, channel], LANES) for b in range(count)]
        return bind("tokens", interleave(rows + [x86.splat(0, "int8", LANES)] * (GROUP - count)))

    def channel_sums(self, part: int, vector: int) -> tuple[Expr, Expr]:
        """Emit the sums over tokens of q (part 0) or k and of (q - zp)^2, int32x16 each."""
        total, square = Register("total"), Register("square")
        for register in (total, square):
            register.set(constant(0))

        def step(token: Expr | int, count: int) -> None:
            q = self.tokens(token, count, self.first + part * self.kernel.c + vector * LANES)
            flipped = x86.as_type("int8x64", q) ^ self.flips
            total.set(x86.dot_unsigned_signed(total.get(), x86.splat(1, "int8", x86.ZMM_BYTES), q))
            square.set(x86.dot_unsigned_signed(square.get(), flipped, q))

        self.over_tokens(step)
        s = bind("s", total.get())
        z = x86.splat(self.zero_point, "int32", LANES)
        squares = square.get() - (s << constant(7)) - (z * s) * constant(2) + z * z * constant(self.kernel.t)
        return s, bind("squares", squares)

    def gram_tiles(self) -> None:
        """Emit gram[key, query] = sum over tokens of (q + 128) * k."""
        keys = self.keys
        with T.serial(self.d // keys) as tile:
            key = bind("key", tile * keys)
            sums = [[Register(f"sum_{j}_{v}") for v in range(self.vectors)] for j in range(keys)]
            for register in (register for row in sums for register in row):
                register.set(constant(0))
            broadcast = Register("keys")

            def step(token: Expr | int, count: int) -> None:
                broadcast.set(self.tokens(token, count, self.first + self.kernel.c + key))
                for v in range(self.vectors):
                    q = self.tokens(token, count, self.first + v * LANES)
                    flipped = bind("flipped", x86.as_type("int8x64", q) ^ self.flips)
                    for j in range(keys):
                        k = x86.splat(broadcast.buffer[j], "int32", LANES)
                        sums[j][v].set(x86.dot_unsigned_signed(sums[j][v].get(), flipped, k))

            self.over_tokens(step)
            for j in range(keys):
                for v in range(self.vectors):
                    self.store_lanes(self.gram, [self.first + key + j, v * LANES], sums[j][v].get(), self.lanes(v))

    @staticmethod
    def store_lanes(buffer: tirx.Buffer, indices: list[Expr | int], value: Expr, lanes: int) -> None:
        store(buffer, indices, value if lanes == LANES else x86.shuffle(value, list(range(lanes))), lanes)

    def softmax(self, queries: list[tuple[Expr, Expr]], keys: list[tuple[Expr, Expr]]) -> None:
        """Emit the logits, their maximum per query, and e."""
        z = self.zero_point
        for v, (s, squares) in enumerate(keys):
            # What the sums of (q + 128) * k have too much or too little, per key.
            missing = x86.splat(z * z * self.kernel.t, "int32", LANES) - s * x86.splat(z + 128, "int32", LANES)
            for row, value in ((0, missing), (1, x86.as_type("int32x16", self.inverse(squares)))):
                position = [row, self.first + v * LANES]
                self.store_lanes(self.norms, position, bind("per_key", value), self.lanes(v))
        offsets = [bind("offset", s * x86.splat(z, "int32", LANES)) for s, _ in queries]
        scales = [
            bind("scale", x86.splat(self.tau[self.head], "float32", LANES) * self.inverse(squares))
            for _, squares in queries
        ]
        largest = [Register(f"largest_{v}") for v in range(self.vectors)]
        for register in largest:
            register.set(constant(-(1 << 31)))
        limit = float(rq.FIXED_LIMIT)
        with T.serial(self.d) as j:
            channel = self.first + j
            missing = x86.splat(self.norms[0, channel], "int32", LANES)
            inverse = x86.splat(tirx.reinterpret("float32", self.norms[1, channel]), "float32", LANES)
            for v in range(self.vectors):
                g = self.load_gram(channel, v) - offsets[v] + missing
                f = g.astype("float32x16") * scales[v] * inverse
                f = tirx.min(tirx.max(f, x86.splat(-limit, "float32", LANES)), x86.splat(limit, "float32", LANES))
                logit = bind("logit", x86.round_half_even(f))
                largest[v].set(tirx.max(largest[v].get(), logit))
                self.store_lanes(self.gram, [channel, v * LANES], logit, self.lanes(v))
        with T.serial(self.d) as j:
            for v in range(self.vectors):
                diff = bind("diff", largest[v].get() - self.load_gram(self.first + j, v))
                exponent = bind("exponent", tirx.min(diff >> constant(LOGIT_FRACTION_BITS), constant(MAX_EXPONENT)))
                entry = x86.gather_int32(self.table, diff & constant(255))
                mantissa = entry + (constant(1) << (exponent + constant(TABLE_FRACTION_BITS - 1)))
                weights = (mantissa >> (exponent + constant(TABLE_FRACTION_BITS))).astype("int8x16")
                self.store_lanes(self.e, [self.head, j, v * LANES], bind("weights", weights), self.lanes(v))

    def load_gram(self, channel: Expr, vector: int) -> Expr:
        lanes = self.lanes(vector)
        return x86.widen(load(self.gram, [channel, vector * LANES], lanes), lanes, LANES)

    @staticmethod
    def inverse(squares: Expr) -> Expr:
        """Return 1 / sqrt(max(sum of squares, 1)) as float32x16."""
        norm = tirx.max(squares, constant(1)).astype("float32x16")
        return x86.splat(1.0, "float32", LANES) / tirx.sqrt(norm)


def xca_apply_space(kernel: XcaApply, func: tirx.PrimFunc) -> Space:
    """Return the space of attention output: rows whose sums are in registers, tiles of them per parallel iteration."""
    vectors = vectors_of(kernel.d)
    rows = tuple(r for r in divisors(kernel.t) if r == 1 or r * vectors <= REGISTERS)
    default = max(r for r in rows if r == 1 or r * vectors <= FEW_SUMS)
    most = largest_divisor(kernel.t // default, max(1, kernel.t // default // MIN_PARALLEL))
    groups = tuple(sorted({most} | {d for d in divisors(kernel.t) if d in (1, 2, 4, 8, 16, 32, 64) and d <= 2 * most}))
    knobs = (Knob("rows", rows, default), Knob("group", groups, most))

    def fits(d: Decisions) -> bool:
        return kernel.t // d["rows"] % d["group"] == 0

    return Space("x86_vnni.xca_apply", lambda d: build_xca_apply(kernel, func, d["rows"], d["group"]), knobs, fits)


def build_xca_apply(kernel: XcaApply, func: tirx.PrimFunc, rows: int, group: int) -> tirx.PrimFunc:
    """Return `func` for AVX-512: a head's weights are interleaved once per chunk of tokens; values are broadcast."""
    d, vectors = kernel.d, vectors_of(kernel.d)
    tiles = kernel.t // rows
    starts = [min(first, d - GROUP) for first in range(0, d, GROUP)]

    def weights_of(e: tirx.Buffer, head: Expr, number: int, vector: int) -> Expr:
        lanes = min(LANES, d - LANES * vector)
        nothing = x86.splat(0, "int8", LANES)
        # Channels that the group before had already count zero times.
        keys = [j if j >= GROUP * number else None for j in range(starts[number], starts[number] + GROUP)]
        position = vector * LANES
        loaded = [nothing if j is None else x86.widen(load(e, [head, j, position], lanes), lanes, LANES) for j in keys]
        return bind("weights", interleave(loaded))

    def body(*buffers: tirx.Buffer) -> None:
        qkv, e, qp, scale, y = buffers
        zero_point = bind("zp_out", qp[1])
        with T.parallel(tiles // group) as chunk, T.serial(kernel.heads) as head:
            weights = [[weights_of(e, head, g, v) for g in range(len(starts))] for v in range(vectors)]
            begins, multipliers = [], []
            for v in range(vectors):
                total = constant(0)
                for w in weights[v]:
                    total = x86.dot_unsigned_signed(total, w, x86.splat(1, "int8", x86.ZMM_BYTES))
                total = bind("total", total)
                begins.append(bind("begin", constant(0) - total * x86.splat(qp[0], "int32", LANES)))
                ratio = x86.splat(scale[0], "float32", LANES) / total.astype("float32x16")
                multipliers.append(bind("multiplier", ratio))
            with T.serial(group) as tile:
                token = bind("token", (chunk * group + tile) * rows)
                for r in range(rows):
                    sums = list(begins)
                    for g, start in enumerate(starts):
                        position = [token + r, 2 * kernel.c + head * d + start]
                        word = x86.splat(tirx.reinterpret("int32", load(qkv, position, GROUP)), "int32", LANES)
                        values = bind("values", word)
                        sums = [x86.dot_unsigned_signed(s, weights[v][g], values) for v, s in enumerate(sums)]
                        sums = [bind("sums", s) for s in sums]
                    out = requantize(sums, multipliers, zero_point)
                    store(y, [token + r, head * d], x86.shuffle(out, list(range(d))) if d < 64 else out, d)

    return build_function(kernel, func, body)
