"""Cross-covariance attention scores from int8 queries and keys: integer Gram matrix, L2 norms folded in, softmax table.

The L2 norm commutes with the dot product, so softmax(tau * q.k / (|q| |k|)) needs the C/heads x C/heads Gram matrix of
the int8 values and two vectors of sums of squares; no normalised tensor exists. The softmax stays unnormalised:
each row's largest entry is 127 and `xca_apply` divides by the row's sum (EdgeNeXt, Maaz et al. 2022, section 3.1;
XCiT, El-Nouby et al. 2021, eq. 2).
"""

from __future__ import annotations

import dataclasses

import numpy as np
from tvm import tirx

from ..errors import UserError
from . import requantize as rq
from .base import Kernel, TensorType, check_at_least_one
from .blocks import block, build_kernel, reduction_init, scratch, shared_loop, store

MAX_TOKENS = 33_000
"""T * 255 * 255 must fit int32."""
MAX_HEAD_CHANNELS = 256
"""A row of int32 logits is scratch of at most 1 KiB."""
LOGIT_FRACTION_BITS = 8
MAX_EXPONENT = 15
TABLE_FRACTION_BITS = 16


def check_heads(kernel: XcaScores | object, c: int, heads: int, kind: str) -> None:
    """Raise UserError unless C divides into `heads` of at most MAX_HEAD_CHANNELS channels."""
    if c % heads:
        raise UserError(f"{kind}: c={c} does not divide into heads={heads}")
    if c // heads > MAX_HEAD_CHANNELS:
        raise UserError(
            f"{kind}: c={c} over heads={heads} gives {c // heads} channels a head, at most {MAX_HEAD_CHANNELS} are "
            "allowed; use more heads"
        )


@dataclasses.dataclass(frozen=True)
class XcaScores(Kernel):
    """e[h, j, i] in [0, 127]: weight of key channel j for query channel i of head h; the largest over j is 127.

    Arguments: qkv int8[T, 3C] = [q | k | v], each [heads, d] with d = C / heads; zp int32[1]; tau float32[heads]
    = temperature * log2(e) * 2^8; exp_table int32[256] = round(127 * 2^16 * 2^(-f/256)). Output
    e int8[heads, d, d], stored key-major so that `xca_apply` reads it along i. Workspaces: gram int32[C, d] (query
    channel times key channel of its head), norms int32[2, C] (sums of squares of q, then k).
    """

    t: int
    c: int
    heads: int

    kind = "xca_scores"

    def __post_init__(self) -> None:
        check_at_least_one(self, "t", "c", "heads")
        check_heads(self, self.c, self.heads, self.kind)
        if self.t > MAX_TOKENS:
            raise UserError(
                f"xca_scores: t is {self.t}, at most {MAX_TOKENS} tokens fit int32 sums; use a smaller image"
            )

    @property
    def d(self) -> int:
        """Channels a head."""
        return self.c // self.heads

    @property
    def num_workspaces(self) -> int:
        """gram and norms."""
        return 2

    def input_types(self) -> list[TensorType]:
        """See the class docstring."""
        return [
            ((self.t, 3 * self.c), "int8"),
            ((1,), "int32"),
            ((self.heads,), "float32"),
            ((256,), "int32"),
        ]

    def output_types(self) -> list[TensorType]:
        """e [heads, d, d], then the workspaces gram [C, d] and norms [2, C]."""
        return [
            ((self.heads, self.d, self.d), "int8"),
            ((self.c, self.d), "int32"),
            ((2, self.c), "int32"),
        ]

    @property
    def macs(self) -> int:
        """T * C * d for the Gram matrix and 2 * T * C for the norms."""
        return self.t * self.c * (self.d + 2)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """The same integer steps on whole arrays."""
        qkv, zp, tau, table = arrays
        centred = (qkv[:, : 2 * self.c].astype(np.int32) - zp[0]).reshape(self.t, 2, self.heads, self.d)
        q, k = centred[:, 0], centred[:, 1]
        gram = np.einsum("thi,thj->hij", q, k)
        norms = np.maximum((centred * centred).sum(axis=0, dtype=np.int32), 1)
        inverse = np.float32(1) / np.sqrt(norms.astype(np.float32))
        f = gram.astype(np.float32) * (tau[:, None] * inverse[0])[:, :, None] * inverse[1][:, None, :]
        logits = rq.fixed_from_float(f)
        diff = logits.max(axis=2, keepdims=True) - logits
        exponent = np.minimum(diff >> LOGIT_FRACTION_BITS, MAX_EXPONENT)
        mantissa = table[diff & 255] + (np.int32(1) << (TABLE_FRACTION_BITS - 1 + exponent))
        return np.ascontiguousarray((mantissa >> (TABLE_FRACTION_BITS + exponent)).astype(np.int8).transpose(0, 2, 1))

    def _build(self) -> tirx.PrimFunc:
        heads, d, c = self.heads, self.d, self.c

        def body(*buffers: tirx.Buffer) -> None:
            qkv, zp, tau, table, e, gram, norms = buffers
            inverse = scratch("inverse", (2, heads, d), "float32")
            logits = scratch("logits", (heads, d, d), "int32")
            row_max = scratch("row_max", (heads, d), "int32")
            zero, one = tirx.const(0, "int32"), tirx.const(1, "int32")

            def centred(t: tirx.Expr, channel: tirx.Expr) -> tirx.Expr:
                return rq.to_int32(qkv[t, channel]) - zp[0]

            with shared_loop(heads) as head:
                with block("gram", "SSR", (d, d, self.t), head) as (h, i, j, t):
                    with reduction_init():
                        store(gram, (h * d + i, j), zero)
                    product = centred(t, h * d + i) * centred(t, c + h * d + j)
                    store(gram, (h * d + i, j), gram[h * d + i, j] + product)
                with block("norms", "SSR", (2, d, self.t), head) as (h, s, i, t):
                    with reduction_init():
                        store(norms, (s, h * d + i), zero)
                    value = centred(t, s * c + h * d + i)
                    store(norms, (s, h * d + i), norms[s, h * d + i] + value * value)
                with block("inverse", "SS", (2, d), head) as (h, s, i):
                    norm = rq.to_float32(tirx.max(norms[s, h * d + i], one))
                    store(inverse, (s, h, i), tirx.const(1.0, "float32") / tirx.sqrt(norm))
                with block("logits", "SS", (d, d), head) as (h, i, j):
                    f = rq.to_float32(gram[h * d + i, j]) * (tau[h] * inverse[0, h, i]) * inverse[1, h, j]
                    store(logits, (h, i, j), rq.fixed_from_float_expr(f))
                with block("row_max", "SR", (d, d), head) as (h, i, j):
                    with reduction_init():
                        store(row_max, (h, i), tirx.const(-(1 << 31), "int32"))
                    store(row_max, (h, i), tirx.max(row_max[h, i], logits[h, i, j]))
                with block("out", "SS", (d, d), head) as (h, i, j):
                    diff = row_max[h, i] - logits[h, i, j]
                    exponent = tirx.min(diff >> LOGIT_FRACTION_BITS, tirx.const(MAX_EXPONENT, "int32"))
                    mantissa = table[diff & 255] + (one << (exponent + (TABLE_FRACTION_BITS - 1)))
                    store(e, (h, j, i), (mantissa >> (exponent + TABLE_FRACTION_BITS)).astype("int8"))

        names = ["qkv", "zp", "tau", "exp_table", "e", "gram", "norms"]
        return build_kernel(self, names, body)
