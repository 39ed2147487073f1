"""Mean over the image of an int8 or wide tensor, requantized once."""

from __future__ import annotations

import dataclasses

import numpy as np
from tvm import tirx

from ..errors import UserError
from . import requantize as rq
from .base import Kernel, TensorType, check_activation_dtypes, check_at_least_one
from .blocks import block, build_kernel, reduction_init, scratch, store

WIDE_MAX_PIXELS = (1 << 31) // 4096
"""Above it the sum of a wide tensor's distances from its zero point may exceed int32."""


@dataclasses.dataclass(frozen=True)
class GlobalAvgPool(Kernel):
    """y[N, C] = requant(sum over H, W of (x - zp_in), mult, zp_out), NHWC, with mult = s_in / (s_out * H * W).

    Arguments: x int8[N, H, W, C], mult float32[1], qp int32[2] = (zp_in, zp_out); y int8[N, C].
    x_dtype and out_dtype may be "int16", a wide tensor: the mean of many values is finer than they are.
    """

    n: int
    h: int
    w: int
    c: int
    x_dtype: str = "int8"
    out_dtype: str = "int8"

    kind = "global_avg_pool"
    added_fields = ("x_dtype", "out_dtype")

    def __post_init__(self) -> None:
        check_at_least_one(self, "n", "h", "w", "c")
        check_activation_dtypes(self, "x_dtype", "out_dtype")
        if self.x_dtype == "int16" and self.h * self.w > WIDE_MAX_PIXELS:
            raise UserError(
                f"global_avg_pool: {self.h}x{self.w} pixels of a wide tensor, at most {WIDE_MAX_PIXELS} fit an int32 "
                "sum; use a smaller image"
            )

    def input_types(self) -> list[TensorType]:
        """See the class docstring."""
        return [((self.n, self.h, self.w, self.c), self.x_dtype), ((1,), "float32"), ((2,), "int32")]

    def output_types(self) -> list[TensorType]:
        """y [N, C]."""
        return [((self.n, self.c), self.out_dtype)]

    @property
    def macs(self) -> int:
        """N * H * W * C additions."""
        return self.n * self.h * self.w * self.c

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """Integer sum, then one rounding."""
        x, mult, qp = arrays
        total = (x.astype(np.int32) - qp[0]).sum(axis=(1, 2), dtype=np.int32)
        return rq.requant(total, mult[0], qp[1], self.out_dtype)

    def _build(self) -> tirx.PrimFunc:
        def body(x: tirx.Buffer, mult: tirx.Buffer, qp: tirx.Buffer, y: tirx.Buffer) -> None:
            acc = scratch("acc", (self.n, self.c), "int32")
            with block("acc", "SSRR", (self.n, self.c, self.h, self.w)) as (n, c, i, j):
                with reduction_init():
                    store(acc, (n, c), tirx.const(0, "int32"))
                store(acc, (n, c), acc[n, c] + rq.to_int32(x[n, i, j, c]))
            with block("out", "SS", (self.n, self.c)) as (n, c):
                centred = acc[n, c] - qp[0] * (self.h * self.w)
                store(y, (n, c), rq.requant_expr(centred, mult[0], qp[1], self.out_dtype))

        return build_kernel(self, ["x", "mult", "qp", "y"], body)
