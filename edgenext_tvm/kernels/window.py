"""The sliding window that convolutions share: output extents, padded loads and their NumPy twin.

A windowed kernel has the fields n, h, w, kh, kw, stride_h, stride_w, pad_top, pad_left, pad_bottom, pad_right.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from tvm import tirx

from ..errors import UserError
from .base import check_at_least_one

PAD_FIELDS = ("pad_top", "pad_left", "pad_bottom", "pad_right")


def output_extent(kernel: Any) -> tuple[int, int]:
    """Return (OH, OW)."""
    oh = (kernel.h + kernel.pad_top + kernel.pad_bottom - kernel.kh) // kernel.stride_h + 1
    ow = (kernel.w + kernel.pad_left + kernel.pad_right - kernel.kw) // kernel.stride_w + 1
    return oh, ow


def check_window(kernel: Any) -> None:
    """Raise UserError unless the window is well formed and the output not empty."""
    check_at_least_one(kernel, "n", "h", "w", "kh", "kw", "stride_h", "stride_w")
    for field in PAD_FIELDS:
        if getattr(kernel, field) < 0:
            raise UserError(f"{kernel.kind}: {field} is {getattr(kernel, field)}, must be at least 0")
    if min(output_extent(kernel)) < 1:
        raise UserError(
            f"{kernel.kind}: a {kernel.kh}x{kernel.kw} window does not fit a {kernel.h}x{kernel.w} image with padding "
            f"{[getattr(kernel, field) for field in PAD_FIELDS]} (top, left, bottom, right); use a larger image"
        )


def padded_load(
    kernel: Any,
    x: tirx.Buffer,
    n: tirx.Expr,
    i: tirx.Expr,
    j: tirx.Expr,
    kh: tirx.Expr,
    kw: tirx.Expr,
    c: tirx.Expr,
    zero_point: tirx.Expr,
) -> tirx.Expr:
    """Return int8 x[n, ih, iw, c] for window position (i, j) and tap (kh, kw), or the zero point outside the image.

    The bounds test is emitted only for the sides that can be crossed.
    """
    ih = i * kernel.stride_h + kh - kernel.pad_top
    iw = j * kernel.stride_w + kw - kernel.pad_left
    oh, ow = output_extent(kernel)
    inside: list[tirx.Expr] = []
    if kernel.pad_top:
        inside.append(ih >= 0)
    if (oh - 1) * kernel.stride_h + kernel.kh - kernel.pad_top > kernel.h:
        inside.append(ih < kernel.h)
    if kernel.pad_left:
        inside.append(iw >= 0)
    if (ow - 1) * kernel.stride_w + kernel.kw - kernel.pad_left > kernel.w:
        inside.append(iw < kernel.w)
    if not inside:
        return x[n, ih, iw, c]
    return tirx.if_then_else(tirx.all(*inside), x[n, ih, iw, c], zero_point.astype("int8"))


def padded_taps(kernel: Any, x: np.ndarray, zero_point: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield (kh, kw, int8[N, OH, OW, C]) for each tap: what every window position sees there."""
    pads = ((0, 0), (kernel.pad_top, kernel.pad_bottom), (kernel.pad_left, kernel.pad_right), (0, 0))
    padded = np.pad(x, pads, constant_values=np.int8(zero_point))
    oh, ow = output_extent(kernel)
    for kh in range(kernel.kh):
        for kw in range(kernel.kw):
            rows = slice(kh, kh + (oh - 1) * kernel.stride_h + 1, kernel.stride_h)
            columns = slice(kw, kw + (ow - 1) * kernel.stride_w + 1, kernel.stride_w)
            yield kh, kw, padded[:, rows, columns]
