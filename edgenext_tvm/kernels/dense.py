"""Pointwise convolution and linear layer: one integer matrix product with the requantization in its epilogue."""

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


@dataclasses.dataclass(frozen=True)
class Dense(Kernel):
    """y[T, CO] = epilogue(bias[CO] + x[T, CI] @ w[CI, CO]), int32 sums.

    Arguments: x int8[T, CI], w int8[CI, CO], bias int32[CO], mult float32[CO], qp int32[2] = (zp_in, zp_out), then the
    epilogue's. With out_dtype "float32" (logits) y = float32(acc) * mult, epilogue "none", and qp is not read.
    x_dtype, out_dtype and r_dtype (the residual's) may be "int16", a wide tensor; with a table the output is int8.
    """

    t: int
    ci: int
    co: int
    epilogue: str = "none"
    out_dtype: str = "int8"
    x_dtype: str = "int8"
    r_dtype: str = "int8"

    kind = "dense"
    added_fields = ("x_dtype", "r_dtype")

    def __post_init__(self) -> None:
        check_at_least_one(self, "t", "ci", "co")
        check_choice(self, "epilogue", EPILOGUES)
        check_choice(self, "out_dtype", ("int8", "int16", "float32"))
        check_activation_dtypes(self, "x_dtype", "r_dtype")
        if self.out_dtype == "float32":
            check_choice(self, "epilogue", ("none",))
        check_epilogue_dtypes(self)

    def input_types(self) -> list[TensorType]:
        """See the class docstring."""
        return [
            ((self.t, self.ci), self.x_dtype),
            ((self.ci, self.co), "int8"),
            ((self.co,), "int32"),
            ((self.co,), "float32"),
            ((2,), "int32"),
            *epilogue_types(self.epilogue, (self.t, self.co), self.r_dtype),
        ]

    def output_types(self) -> list[TensorType]:
        """y [T, CO]."""
        return [((self.t, self.co), self.out_dtype)]

    @property
    def macs(self) -> int:
        """T * CI * CO."""
        return self.t * self.ci * self.co

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """Naive integer matrix product, then the epilogue."""
        x, w, bias, mult, qp, *extra = arrays
        acc = x.astype(np.int32) @ w.astype(np.int32) + bias
        if self.out_dtype == "float32":
            return acc.astype(np.float32) * mult
        return reference_epilogue(self.epilogue, acc, mult, qp, tuple(extra), self.out_dtype)

    def _build(self) -> tirx.PrimFunc:
        names = ["x", "w", "bias", "mult", "qp", *epilogue_names(self.epilogue), "y"]

        def body(*buffers: tirx.Buffer) -> None:
            x, w, bias, mult, qp, *extra, y = buffers
            acc = scratch("acc", (self.t, self.co), "int32")
            with block("acc", "SSR", (self.t, self.co, self.ci)) as (t, co, ci):
                with reduction_init():
                    store(acc, (t, co), bias[co])
                store(acc, (t, co), acc[t, co] + rq.to_int32(x[t, ci]) * rq.to_int32(w[ci, co]))
            if self.out_dtype == "float32":
                with block("out", "SS", (self.t, self.co)) as (t, co):
                    store(y, (t, co), rq.to_float32(acc[t, co]) * mult[co])
            else:
                emit_epilogue(self.epilogue, acc, mult, qp, extra, y)

        return build_kernel(self, names, body)
