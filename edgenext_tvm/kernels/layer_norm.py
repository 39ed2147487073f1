"""LayerNorm over channels from int32 sums of int8 or wide values: a square root and a division a row, no float sums."""

from __future__ import annotations

import dataclasses

import numpy as np
from tvm import tirx

from ..errors import UserError
from . import requantize as rq
from .base import Kernel, TensorType, check_activation_dtypes, check_at_least_one
from .blocks import block, build_kernel, reduction_init, scratch, store
from .wide import QRANGE, WIDE_MAX_CHANNELS, WIDE_QMIN

MAX_CHANNELS = 2048
"""Above it 16 * sum of squared deviations may exceed int32."""
AFFINE_SHIFT = 10
"""Fractional bits of the normalised value before gamma and beta (affine only)."""
WIDE_AFFINE_SHIFT = 12
"""The same for a wide output, whose levels lie closer."""


def affine_shift(out_dtype: str) -> int:
    """Return the fractional bits of the normalised value before gamma and beta."""
    return WIDE_AFFINE_SHIFT if out_dtype == "int16" else AFFINE_SHIFT


def deviation_factor(x_dtype: str) -> int:
    """Return what the sum of squared deviations is multiplied by before it is rounded to an integer.

    A wide input's values are 16 times finer, so its sum is 256 times larger and needs no factor (nor is there room).
    """
    return 1 if x_dtype == "int16" else 16


@dataclasses.dataclass(frozen=True)
class LayerNorm(Kernel):
    """y[T, c] = requant((x - mean) / sqrt(var + eps)), the mean and variance over C of each row.

    Arguments: x int8[T, C], ln float32[2] = (E, K), qp int32[1] = (zp_out); with affine also g int32[C], b int32[C],
    rs float32[1]: the normalised value has AFFINE_SHIFT fractional bits and out = requant(fixed * g + b, rs, zp_out).
    The input's zero point cancels. With S and Q the sums of x and x^2 and mu the rounded mean,
    D = Q - 2 mu S + C mu^2 is small enough for int32, and v = 16 (D - r^2 / C) + E with r = S - C mu (the shifted
    variance identity, Chan, Golub, LeVeque 1983, eq. 1.7); E = 16 C eps / s_in^2, K = 4 / (sqrt(C) s_out).

    x_dtype and out_dtype may be "int16", a wide tensor. For a wide input v = D - r^2 / C + E without the factor 16,
    whose root is K's 4 (r^2 / C is rounded down: at most one D-th of the variance is lost, and D is 256 times int8's),
    and D = Q - mu (S + r), in which no product exceeds int32; with a wide output the affine part has
    WIDE_AFFINE_SHIFT fractional bits.
    """

    t: int
    c: int
    affine: bool = False
    x_dtype: str = "int8"
    out_dtype: str = "int8"

    kind = "layer_norm"
    added_fields = ("x_dtype", "out_dtype")

    def __post_init__(self) -> None:
        check_at_least_one(self, "t", "c")
        check_activation_dtypes(self, "x_dtype", "out_dtype")
        most, what = (WIDE_MAX_CHANNELS, " of a wide tensor") if self.x_dtype == "int16" else (MAX_CHANNELS, "")
        if self.c > most:
            raise UserError(f"layer_norm: c is {self.c}, at most {most} channels{what} fit int32 sums")

    def input_types(self) -> list[TensorType]:
        """See the class docstring."""
        types: list[TensorType] = [((self.t, self.c), self.x_dtype), ((2,), "float32"), ((1,), "int32")]
        if self.affine:
            types += [((self.c,), "int32"), ((self.c,), "int32"), ((1,), "float32")]
        return types

    def output_types(self) -> list[TensorType]:
        """y [T, C]."""
        return [((self.t, self.c), self.out_dtype)]

    @property
    def macs(self) -> int:
        """2 * T * C: the sum of squares and the scaling."""
        return 2 * self.t * self.c

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """The same integer steps on whole arrays."""
        x, ln, qp, *extra = arrays
        c = self.c
        q = x.astype(np.int32)
        s = q.sum(axis=1, keepdims=True, dtype=np.int32)
        squares = (q * q).sum(axis=1, keepdims=True, dtype=np.int32)
        lowest = -QRANGE[self.x_dtype][0]
        mean = (2 * (s + lowest * c) + c) // (2 * c) - lowest
        remainder = s - c * mean
        deviation = squares - mean * (s + remainder)
        factor = deviation_factor(self.x_dtype)
        variance = factor * deviation - (factor * remainder * remainder) // c
        multiplier = ln[1] / np.sqrt(variance.astype(np.float32) + ln[0])
        centred = c * q - s
        if not self.affine:
            return rq.requant(centred, multiplier, qp[0], self.out_dtype)
        g, b, rs = extra
        return rq.requant(rq.fixed(centred, multiplier) * g + b, rs[0], qp[0], self.out_dtype)

    def _build(self) -> tirx.PrimFunc:
        names = ["x", "ln", "qp", *(["g", "b", "rs"] if self.affine else []), "y"]

        def body(*buffers: tirx.Buffer) -> None:
            x, ln, qp, *extra, y = buffers
            sums = scratch("sums", (self.t,), "int32")
            squares = scratch("squares", (self.t,), "int32")
            scale = scratch("scale", (self.t,), "float32")
            with block("sum", "SR", (self.t, self.c)) as (t, c):
                with reduction_init():
                    store(sums, (t,), tirx.const(0, "int32"))
                store(sums, (t,), sums[t] + rq.to_int32(x[t, c]))
            with block("squares", "SR", (self.t, self.c)) as (t, c):
                with reduction_init():
                    store(squares, (t,), tirx.const(0, "int32"))
                store(squares, (t,), squares[t] + rq.to_int32(x[t, c]) * rq.to_int32(x[t, c]))
            with block("scale", "S", (self.t,)) as (t,):
                variance = self.variance_expr(sums[t], squares[t])
                store(scale, (t,), ln[1] / tirx.sqrt(rq.to_float32(variance) + ln[0]))
            with block("out", "SS", (self.t, self.c)) as (t, c):
                centred = rq.to_int32(x[t, c]) * self.c - sums[t]
                if self.affine:
                    g, b, rs = extra
                    value = rq.fixed_expr(centred, scale[t]) * g[c] + b[c]
                    store(y, (t, c), rq.requant_expr(value, rs[0], qp[0], self.out_dtype))
                else:
                    store(y, (t, c), rq.requant_expr(centred, scale[t], qp[0], self.out_dtype))

        return build_kernel(self, names, body)

    def variance_expr(self, s: tirx.Expr, squares: tirx.Expr) -> tirx.Expr:
        """Return `deviation_factor` times the squared deviations' sum, from the sums of x and x^2: scalar or vector."""
        # Operands of both divisions are not negative, so truncation is floor and costs no sign fix-up.
        c = self.c
        if self.x_dtype == "int16":
            mean = tirx.truncdiv((s + -WIDE_QMIN * c) * 2 + c, 2 * c) + WIDE_QMIN
            remainder = s - mean * c
            return squares - mean * (s + remainder) - tirx.truncdiv(remainder * remainder, tirx.const(c, "int32"))
        mean = tirx.truncdiv((s + 128 * c) * 2 + c, 2 * c) - 128
        remainder = s - mean * c
        deviation = squares - mean * s * 2 + mean * mean * c
        return deviation * 16 - tirx.truncdiv(remainder * remainder * 16, tirx.const(c, "int32"))
