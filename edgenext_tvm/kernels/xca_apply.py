"""Cross-covariance attention applied to the int8 values; the softmax's division is folded into the requantization."""

from __future__ import annotations

import dataclasses

import numpy as np
from tvm import tirx

from . import requantize as rq
from .base import Kernel, TensorType, check_at_least_one
from .blocks import block, build_kernel, reduction_init, scratch, store
from .xca_scores import check_heads


@dataclasses.dataclass(frozen=True)
class XcaApply(Kernel):
    """y[t, h, i] = requant(sum over j of e[h, j, i] * (v[t, h, j] - zp_v), scale / sum over j of e[h, j, i], zp_out).

    Arguments: qkv int8[T, 3C] = [q | k | v], each [heads, d] with d = C / heads; e int8[heads, d, d] as written by
    `xca_scores` (key channel j, then query channel i); qp int32[2] = (zp_v, zp_out); scale float32[1] = s_v / s_out;
    y int8[T, C].
    """

    t: int
    c: int
    heads: int

    kind = "xca_apply"

    def __post_init__(self) -> None:
        check_at_least_one(self, "t", "c", "heads")
        check_heads(self, self.c, self.heads, self.kind)

    @property
    def d(self) -> int:
        """Channels a head."""
        return self.c // self.heads

    def input_types(self) -> list[TensorType]:
        """See the class docstring."""
        return [
            ((self.t, 3 * self.c), "int8"),
            ((self.heads, self.d, self.d), "int8"),
            ((2,), "int32"),
            ((1,), "float32"),
        ]

    def output_types(self) -> list[TensorType]:
        """y [T, C]."""
        return [((self.t, self.c), "int8")]

    @property
    def macs(self) -> int:
        """T * C * d."""
        return self.t * self.c * self.d

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """Integer products on whole arrays, then one rounding."""
        qkv, e, qp, scale = arrays
        v = (qkv[:, 2 * self.c :].astype(np.int32) - qp[0]).reshape(self.t, self.heads, self.d)
        weights = e.astype(np.int32)
        acc = np.einsum("thj,hji->thi", v, weights)
        total = weights.sum(axis=1, dtype=np.int32)
        return rq.requant(acc, scale[0] / total.astype(np.float32), qp[1]).reshape(self.t, self.c)

    def _build(self) -> tirx.PrimFunc:
        heads, d = self.heads, self.d

        def body(*buffers: tirx.Buffer) -> None:
            qkv, e, qp, scale, y = buffers
            total = scratch("total", (heads, d), "int32")
            mult = scratch("mult", (heads, d), "float32")
            acc = scratch("acc", (self.t, heads, d), "int32")
            zero = tirx.const(0, "int32")
            with block("total", "SSR", (heads, d, d)) as (h, i, j):
                with reduction_init():
                    store(total, (h, i), zero)
                store(total, (h, i), total[h, i] + rq.to_int32(e[h, j, i]))
            with block("mult", "SS", (heads, d)) as (h, i):
                store(mult, (h, i), scale[0] / rq.to_float32(total[h, i]))
            with block("acc", "SSSR", (self.t, heads, d, d)) as (t, h, i, j):
                with reduction_init():
                    store(acc, (t, h, i), zero)
                value = rq.to_int32(qkv[t, 2 * self.c + h * d + j])
                store(acc, (t, h, i), acc[t, h, i] + value * rq.to_int32(e[h, j, i]))
            with block("out", "SSS", (self.t, heads, d)) as (t, h, i):
                centred = acc[t, h, i] - total[h, i] * qp[0]
                store(y, (t, h * d + i), rq.requant_expr(centred, mult[h, i], qp[1]))

        return build_kernel(self, ["qkv", "e", "qp", "scale", "y"], body)
