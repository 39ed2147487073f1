"""Addition of two int8 or wide tensors of different scales, each read from a channel window, with one rounding."""

from __future__ import annotations

import dataclasses

import numpy as np
from tvm import tirx

from . import requantize as rq
from .base import Kernel, TensorType, check_activation_dtypes, check_at_least_one, check_channel_window
from .blocks import block, build_kernel, store


@dataclasses.dataclass(frozen=True)
class Add(Kernel):
    """y[t, c] = requant((a - za) * ma + (b - zb) * mb, rs, zo).

    Arguments: a int8[T, AC], of which channels [a_offset, a_offset + C) are read; b int8[T, BC] likewise;
    ap int32[5] = (za, ma, zb, mb, zo); rs float32[1]; y int8[T, C]. ma and mb are the scales' ratios to y's times
    2^F and rs is 2^-F. a_channels and b_channels 0 mean C. a_dtype, b_dtype and out_dtype may be "int16" (wide).
    """

    t: int
    c: int
    a_channels: int = 0
    a_offset: int = 0
    b_channels: int = 0
    b_offset: int = 0
    a_dtype: str = "int8"
    b_dtype: str = "int8"
    out_dtype: str = "int8"

    kind = "add"
    added_fields = ("a_dtype", "b_dtype", "out_dtype")

    def __post_init__(self) -> None:
        check_at_least_one(self, "t", "c")
        for field in ("a_channels", "b_channels"):
            if getattr(self, field) == 0:
                object.__setattr__(self, field, self.c)
        check_channel_window(self, "a_offset", self.c, "a_channels")
        check_channel_window(self, "b_offset", self.c, "b_channels")
        check_activation_dtypes(self, "a_dtype", "b_dtype", "out_dtype")

    def input_types(self) -> list[TensorType]:
        """See the class docstring."""
        return [
            ((self.t, self.a_channels), self.a_dtype),
            ((self.t, self.b_channels), self.b_dtype),
            ((5,), "int32"),
            ((1,), "float32"),
        ]

    def output_types(self) -> list[TensorType]:
        """y [T, C]."""
        return [((self.t, self.c), self.out_dtype)]

    @property
    def macs(self) -> int:
        """2 * T * C."""
        return 2 * self.t * self.c

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """The same integer steps on whole arrays."""
        a, b, ap, rs = arrays
        left = a[:, self.a_offset : self.a_offset + self.c].astype(np.int32) - ap[0]
        right = b[:, self.b_offset : self.b_offset + self.c].astype(np.int32) - ap[2]
        return rq.requant(left * ap[1] + right * ap[3], rs[0], ap[4], self.out_dtype)

    def _build(self) -> tirx.PrimFunc:
        def body(a: tirx.Buffer, b: tirx.Buffer, ap: tirx.Buffer, rs: tirx.Buffer, y: tirx.Buffer) -> None:
            with block("out", "SS", (self.t, self.c)) as (t, c):
                left = (rq.to_int32(a[t, c + self.a_offset]) - ap[0]) * ap[1]
                right = (rq.to_int32(b[t, c + self.b_offset]) - ap[2]) * ap[3]
                store(y, (t, c), rq.requant_expr(left + right, rs[0], ap[4], self.out_dtype))

        return build_kernel(self, ["a", "b", "ap", "rs", "y"], body)
