"""Depthwise convolution on a channel window, so that splits and concatenations along C copy nothing."""

from __future__ import annotations

import dataclasses

import numpy as np
from tvm import tirx

from . import requantize as rq
from .base import (
    EPILOGUES,
    Kernel,
    TensorType,
    check_activation_dtypes,
    check_at_least_one,
    check_channel_window,
    check_choice,
    check_epilogue_dtypes,
)
from .blocks import block, build_kernel, reduction_init, scratch, store
from .epilogue import emit_epilogue, epilogue_names, epilogue_types, reference_epilogue
from .window import check_window, emit_padding, needs_padding, output_extent, padded_taps


@dataclasses.dataclass(frozen=True)
class Depthwise(Kernel):
    """y[N, OH, OW, c] = epilogue(bias[c] + sum over KH, KW of x[..., c] * w[KH, KW, c]), NHWC, int32 sums.

    Arguments: x int8[N, H, W, XC], of which channels [x_offset, x_offset + C) are read; w int8[KH, KW, C],
    bias int32[C], mult float32[C], qp int32[2] = (zp_in, zp_out), then the epilogue's (a residual r is
    [N, OH, OW, C]). y int8[N, OH, OW, YC], of which channels [y_offset, y_offset + C) are written. With inplace a
    last input y_in shares memory with y and the other channels keep its values; else they are undefined (0 in the
    twin). Padding pixels have the value zp_in. x_channels and y_channels 0 mean C. x_dtype, out_dtype (y's and y_in's)
    and r_dtype (the residual's) may be "int16", a wide tensor; with a table the output is int8.
    """

    n: int
    h: int
    w: int
    c: int
    kh: int
    kw: int
    stride_h: int = 1
    stride_w: int = 1
    pad_top: int = 0
    pad_left: int = 0
    pad_bottom: int = 0
    pad_right: int = 0
    x_channels: int = 0
    x_offset: int = 0
    y_channels: int = 0
    y_offset: int = 0
    epilogue: str = "none"
    inplace: bool = False
    x_dtype: str = "int8"
    out_dtype: str = "int8"
    r_dtype: str = "int8"

    kind = "depthwise"
    added_fields = ("x_dtype", "out_dtype", "r_dtype")

    def __post_init__(self) -> None:
        check_at_least_one(self, "c")
        for field in ("x_channels", "y_channels"):
            if getattr(self, field) == 0:
                object.__setattr__(self, field, self.c)
        check_window(self)
        check_channel_window(self, "x_offset", self.c, "x_channels")
        check_channel_window(self, "y_offset", self.c, "y_channels")
        check_choice(self, "epilogue", EPILOGUES)
        check_activation_dtypes(self, "x_dtype", "out_dtype", "r_dtype")
        check_epilogue_dtypes(self)

    @property
    def out_hw(self) -> tuple[int, int]:
        """(OH, OW)."""
        return output_extent(self)

    def input_types(self) -> list[TensorType]:
        """See the class docstring."""
        types: list[TensorType] = [
            ((self.n, self.h, self.w, self.x_channels), self.x_dtype),
            ((self.kh, self.kw, self.c), "int8"),
            ((self.c,), "int32"),
            ((self.c,), "float32"),
            ((2,), "int32"),
            *epilogue_types(self.epilogue, (self.n, *self.out_hw, self.c), self.r_dtype),
        ]
        return types + (self.output_types() if self.inplace else [])

    def output_types(self) -> list[TensorType]:
        """y [N, OH, OW, YC]."""
        return [((self.n, *self.out_hw, self.y_channels), self.out_dtype)]

    @property
    def inplace_input(self) -> int:
        """The last input when `inplace`."""
        return len(self.input_types()) - 1 if self.inplace else -1

    @property
    def macs(self) -> int:
        """N * OH * OW * C * KH * KW."""
        oh, ow = self.out_hw
        return self.n * oh * ow * self.c * self.kh * self.kw

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """Sum of shifted, padded inputs, then the epilogue."""
        x, w, bias, mult, qp, *extra = arrays
        y = extra.pop().copy() if self.inplace else np.zeros(*self.output_types()[0])
        x = x[..., self.x_offset : self.x_offset + self.c]
        acc = np.broadcast_to(bias, (self.n, *self.out_hw, self.c)).astype(np.int32)
        for kh, kw, tap in padded_taps(self, x, qp[0]):
            acc = acc + tap.astype(np.int32) * w[kh, kw].astype(np.int32)
        out = reference_epilogue(self.epilogue, acc, mult, qp, tuple(extra), self.out_dtype)
        y[..., self.y_offset : self.y_offset + self.c] = out
        return y

    def _build(self) -> tirx.PrimFunc:
        names = ["x", "w", "bias", "mult", "qp", *epilogue_names(self.epilogue)]
        names += ["y_in", "y"] if self.inplace else ["y"]

        def body(*buffers: tirx.Buffer) -> None:
            x, w, bias, mult, qp, *extra, y = buffers
            if self.inplace:
                extra = extra[:-1]
            oh, ow = self.out_hw
            padded = needs_padding(self)
            image = emit_padding(self, x, self.x_offset, self.c, qp[0]) if padded else x
            first = 0 if padded else self.x_offset
            acc = scratch("acc", (self.n, oh, ow, self.c), "int32")
            with block("acc", "SSSSRR", (self.n, oh, ow, self.c, self.kh, self.kw)) as (n, i, j, c, kh, kw):
                with reduction_init():
                    store(acc, (n, i, j, c), bias[c])
                value = image[n, i * self.stride_h + kh, j * self.stride_w + kw, c + first]
                product = rq.to_int32(value) * rq.to_int32(w[kh, kw, c])
                store(acc, (n, i, j, c), acc[n, i, j, c] + product)
            emit_epilogue(self.epilogue, acc, mult, qp, extra, y, self.y_offset)

        return build_kernel(self, names, body)
