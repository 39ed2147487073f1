"""Dense convolution (stem and downsampling) in NHWC with the requantization in its epilogue."""

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
    check_choice,
    check_epilogue_dtypes,
)
from .blocks import block, build_kernel, reduction_init, scratch, store
from .epilogue import emit_epilogue, epilogue_names, epilogue_types, reference_epilogue
from .window import check_window, emit_padding, needs_padding, output_extent, padded_taps


@dataclasses.dataclass(frozen=True)
class Conv2d(Kernel):
    """y[N, OH, OW, CO] = epilogue(bias[CO] + sum over KH, KW, CI of x * w[KH, KW, CI, CO]), NHWC, int32 sums.

    Arguments: x int8[N, H, W, CI], w int8[KH, KW, CI, CO], bias int32[CO], mult float32[CO],
    qp int32[2] = (zp_in, zp_out), then the epilogue's. Padding pixels have the value zp_in.
    x_dtype, out_dtype and r_dtype (the residual's) may be "int16", a wide tensor; with a table the output is int8.
    """

    n: int
    h: int
    w: int
    ci: int
    co: int
    kh: int
    kw: int
    stride_h: int = 1
    stride_w: int = 1
    pad_top: int = 0
    pad_left: int = 0
    pad_bottom: int = 0
    pad_right: int = 0
    epilogue: str = "none"
    out_dtype: str = "int8"
    x_dtype: str = "int8"
    r_dtype: str = "int8"

    kind = "conv2d"
    added_fields = ("x_dtype", "r_dtype")

    def __post_init__(self) -> None:
        check_at_least_one(self, "ci", "co")
        check_window(self)
        check_choice(self, "epilogue", EPILOGUES)
        check_activation_dtypes(self, "x_dtype", "r_dtype", "out_dtype")
        check_epilogue_dtypes(self)

    @property
    def out_hw(self) -> tuple[int, int]:
        """(OH, OW)."""
        return output_extent(self)

    def input_types(self) -> list[TensorType]:
        """See the class docstring."""
        return [
            ((self.n, self.h, self.w, self.ci), self.x_dtype),
            ((self.kh, self.kw, self.ci, self.co), "int8"),
            ((self.co,), "int32"),
            ((self.co,), "float32"),
            ((2,), "int32"),
            *epilogue_types(self.epilogue, (self.n, *self.out_hw, self.co), self.r_dtype),
        ]

    def output_types(self) -> list[TensorType]:
        """y [N, OH, OW, CO]."""
        return [((self.n, *self.out_hw, self.co), self.out_dtype)]

    @property
    def macs(self) -> int:
        """N * OH * OW * CO * KH * KW * CI."""
        oh, ow = self.out_hw
        return self.n * oh * ow * self.co * self.kh * self.kw * self.ci

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """Sum over taps of integer matrix products, then the epilogue."""
        x, w, bias, mult, qp, *extra = arrays
        acc = np.broadcast_to(bias, (self.n, *self.out_hw, self.co)).astype(np.int32)
        for kh, kw, tap in padded_taps(self, x, qp[0]):
            acc = acc + tap.astype(np.int32) @ w[kh, kw].astype(np.int32)
        return reference_epilogue(self.epilogue, acc, mult, qp, tuple(extra), self.out_dtype)

    def _build(self) -> tirx.PrimFunc:
        names = ["x", "w", "bias", "mult", "qp", *epilogue_names(self.epilogue), "y"]

        def body(*buffers: tirx.Buffer) -> None:
            x, w, bias, mult, qp, *extra, y = buffers
            oh, ow = self.out_hw
            image = emit_padding(self, x, 0, self.ci, qp[0]) if needs_padding(self) else x
            acc = scratch("acc", (self.n, oh, ow, self.co), "int32")
            extents = (self.n, oh, ow, self.co, self.kh, self.kw, self.ci)
            with block("acc", "SSSSRRR", extents) as (n, i, j, co, kh, kw, ci):
                with reduction_init():
                    store(acc, (n, i, j, co), bias[co])
                value = image[n, i * self.stride_h + kh, j * self.stride_w + kw, ci]
                product = rq.to_int32(value) * rq.to_int32(w[kh, kw, ci, co])
                store(acc, (n, i, j, co), acc[n, i, j, co] + product)
            emit_epilogue(self.epilogue, acc, mult, qp, extra, y)

        return build_kernel(self, names, body)
