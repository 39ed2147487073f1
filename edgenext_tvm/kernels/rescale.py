"""From one grid to another, on a channel window: requantization, slice and concatenation of wide tensors.

Between int8 tensors that is a table (`lut`); a wide tensor has too many values for one.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from tvm import tirx

from . import requantize as rq
from .base import Kernel, TensorType, check_activation_dtypes, check_at_least_one, check_channel_window
from .blocks import block, build_kernel, store


@dataclasses.dataclass(frozen=True)
class Rescale(Kernel):
    """y[t, y_offset + c] = requant(x[t, x_offset + c] - zp_in, mult, zp_out) for c in [0, C).

    Arguments: x x_dtype[T, XC], mult float32[1] = s_in / s_out, qp int32[2] = (zp_in, zp_out) [, y_in out_dtype[T, YC]
    sharing memory with y when inplace]; y out_dtype[T, YC]. The dtypes are int8 or int16 (wide). With mult 1 and equal
    zero points and dtypes it copies. Channels outside the window keep y_in's values when inplace, else they are
    undefined (0 in the twin). x_channels and y_channels 0 mean C.
    """

    t: int
    c: int
    x_dtype: str = "int16"
    out_dtype: str = "int16"
    x_channels: int = 0
    x_offset: int = 0
    y_channels: int = 0
    y_offset: int = 0
    inplace: bool = False

    kind = "rescale"

    def __post_init__(self) -> None:
        check_at_least_one(self, "t", "c")
        check_activation_dtypes(self, "x_dtype", "out_dtype")
        for field in ("x_channels", "y_channels"):
            if getattr(self, field) == 0:
                object.__setattr__(self, field, self.c)
        check_channel_window(self, "x_offset", self.c, "x_channels")
        check_channel_window(self, "y_offset", self.c, "y_channels")

    def input_types(self) -> list[TensorType]:
        """See the class docstring."""
        types: list[TensorType] = [((self.t, self.x_channels), self.x_dtype), ((1,), "float32"), ((2,), "int32")]
        return types + (self.output_types() if self.inplace else [])

    def output_types(self) -> list[TensorType]:
        """y [T, YC]."""
        return [((self.t, self.y_channels), self.out_dtype)]

    @property
    def inplace_input(self) -> int:
        """The last input when `inplace`."""
        return 3 if self.inplace else -1

    @property
    def macs(self) -> int:
        """T * C."""
        return self.t * self.c

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """The same integer steps on whole arrays."""
        x, mult, qp, *rest = arrays
        y = rest[0].copy() if self.inplace else np.zeros(*self.output_types()[0])
        centred = x[:, self.x_offset : self.x_offset + self.c].astype(np.int32) - qp[0]
        y[:, self.y_offset : self.y_offset + self.c] = rq.requant(centred, mult[0], qp[1], self.out_dtype)
        return y

    def _build(self) -> tirx.PrimFunc:
        names = ["x", "mult", "qp", *(["y_in"] if self.inplace else []), "y"]

        def body(*buffers: tirx.Buffer) -> None:
            x, mult, qp, *_, y = buffers
            with block("out", "SS", (self.t, self.c)) as (t, c):
                centred = rq.to_int32(x[t, c + self.x_offset]) - qp[0]
                store(y, (t, c + self.y_offset), rq.requant_expr(centred, mult[0], qp[1], self.out_dtype))

        return build_kernel(self, names, body)
