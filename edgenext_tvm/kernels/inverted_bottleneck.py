"""The inverted bottleneck as one kernel: widen, look up, narrow, without a full tensor of hidden values."""

from __future__ import annotations

import dataclasses

import numpy as np
from tvm import tirx

from . import requantize as rq
from .base import Kernel, TensorType, check_at_least_one, check_choice
from .blocks import block, build_kernel, reduction_init, scratch, store
from .dense import Dense
from .epilogue import emit_epilogue, epilogue_names


@dataclasses.dataclass(frozen=True)
class InvertedBottleneck(Kernel):
    """y[T, CO] = the two dense layers widen [CI, H] with epilogue "lut" and narrow [H, CO], bit for bit.

    Arguments: x int8[T, CI], w1 int8[CI, H], bias1 int32[H], mult1 float32[H], qp1 int32[2] = (zp_in, zp before the
    table), lut int8[256], w2 int8[H, CO], bias2 int32[CO], mult2 float32[CO], qp2 int32[2] = (zp after the table,
    zp_out), then the epilogue's, "none" or "residual". A schedule computes as many hidden rows at a time as it likes.
    """

    t: int
    ci: int
    hidden: int
    co: int
    epilogue: str = "none"

    kind = "inverted_bottleneck"

    def __post_init__(self) -> None:
        check_at_least_one(self, "t", "ci", "hidden", "co")
        check_choice(self, "epilogue", ("none", "residual"))

    @property
    def widen(self) -> Dense:
        """The first product, with its table; its arguments are the first six."""
        return Dense(self.t, self.ci, self.hidden, "lut")

    @property
    def narrow(self) -> Dense:
        """The second product; its arguments are the hidden tensor and what follows the first six."""
        return Dense(self.t, self.hidden, self.co, self.epilogue)

    def input_types(self) -> list[TensorType]:
        """See the class docstring."""
        return [*self.widen.input_types(), *self.narrow.input_types()[1:]]

    def output_types(self) -> list[TensorType]:
        """y [T, CO]."""
        return self.narrow.output_types()

    @property
    def macs(self) -> int:
        """T * H * (CI + CO)."""
        return self.widen.macs + self.narrow.macs

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """One dense layer after the other."""
        first = len(self.widen.input_types())
        return self.narrow.reference(self.widen.reference(*arrays[:first]), *arrays[first:])

    def _build(self) -> tirx.PrimFunc:
        names = ["x", "w1", "bias1", "mult1", "qp1", "lut", "w2", "bias2", "mult2", "qp2"]

        def body(*buffers: tirx.Buffer) -> None:
            x, w1, bias1, mult1, qp1, lut, w2, bias2, mult2, qp2, *extra, y = buffers
            wide, narrow = (self.t, self.hidden), (self.t, self.co)
            acc1, q1, hidden = scratch("acc1", wide, "int32"), scratch("q1", wide, "int8"), scratch("h", wide, "int8")
            acc = scratch("acc", narrow, "int32")
            with block("acc1", "SSR", (*wide, self.ci)) as (t, h, ci):
                with reduction_init():
                    store(acc1, (t, h), bias1[h])
                store(acc1, (t, h), acc1[t, h] + rq.to_int32(x[t, ci]) * rq.to_int32(w1[ci, h]))
            with block("q1", "SS", wide) as (t, h):
                store(q1, (t, h), rq.requant_expr(acc1[t, h], mult1[h], qp1[1]))
            with block("hidden", "SS", wide) as (t, h):
                store(hidden, (t, h), rq.lut_expr(lut, q1[t, h]))
            with block("acc", "SSR", (*narrow, self.hidden)) as (t, co, h):
                with reduction_init():
                    store(acc, (t, co), bias2[co])
                store(acc, (t, co), acc[t, co] + rq.to_int32(hidden[t, h]) * rq.to_int32(w2[h, co]))
            emit_epilogue(self.epilogue, acc, mult2, qp2, extra, y)

        return build_kernel(self, [*names, *epilogue_names(self.epilogue), "y"], body)
