"""Any unary function of an int8 tensor as a 256-entry table, on a channel window (so also slice and concatenation)."""

from __future__ import annotations

import dataclasses

import numpy as np
from tvm import tirx

from . import requantize as rq
from .base import Kernel, TensorType, check_at_least_one, check_channel_window
from .blocks import block, build_kernel, store


@dataclasses.dataclass(frozen=True)
class Lut(Kernel):
    """y[t, y_offset + c] = lut[x[t, x_offset + c] + 128] for c in [0, C).

    Arguments: x int8[T, XC], lut int8[256] [, y_in int8[T, YC] sharing memory with y when inplace]; y int8[T, YC].
    Channels outside the window keep y_in's values when inplace, else they are undefined (0 in the twin). x_channels
    and y_channels 0 mean C.
    """

    t: int
    c: int
    x_channels: int = 0
    x_offset: int = 0
    y_channels: int = 0
    y_offset: int = 0
    inplace: bool = False

    kind = "lut"

    def __post_init__(self) -> None:
        check_at_least_one(self, "t", "c")
        for field in ("x_channels", "y_channels"):
            if getattr(self, field) == 0:
                object.__setattr__(self, field, self.c)
        check_channel_window(self, "x_offset", self.c, "x_channels")
        check_channel_window(self, "y_offset", self.c, "y_channels")

    def input_types(self) -> list[TensorType]:
        """See the class docstring."""
        types: list[TensorType] = [((self.t, self.x_channels), "int8"), ((256,), "int8")]
        return types + (self.output_types() if self.inplace else [])

    def output_types(self) -> list[TensorType]:
        """y [T, YC]."""
        return [((self.t, self.y_channels), "int8")]

    @property
    def inplace_input(self) -> int:
        """The last input when `inplace`."""
        return 2 if self.inplace else -1

    @property
    def macs(self) -> int:
        """0: it only moves bytes."""
        return 0

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """Index the table."""
        x, table, *rest = arrays
        y = rest[0].copy() if self.inplace else np.zeros(*self.output_types()[0])
        y[:, self.y_offset : self.y_offset + self.c] = rq.lut(table, x[:, self.x_offset : self.x_offset + self.c])
        return y

    def _build(self) -> tirx.PrimFunc:
        names = ["x", "lut", *(["y_in"] if self.inplace else []), "y"]

        def body(*buffers: tirx.Buffer) -> None:
            x, table, *_, y = buffers
            with block("out", "SS", (self.t, self.c)) as (t, c):
                store(y, (t, c + self.y_offset), rq.lut_expr(table, x[t, c + self.x_offset]))

        return build_kernel(self, names, body)
