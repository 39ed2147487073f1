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
from .blocks import block, scratch, store

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


def needs_padding(kernel: Any) -> bool:
    """Return whether any window reaches outside the image."""
    oh, ow = output_extent(kernel)
    below = (oh - 1) * kernel.stride_h + kernel.kh - kernel.pad_top > kernel.h
    right = (ow - 1) * kernel.stride_w + kernel.kw - kernel.pad_left > kernel.w
    return bool(kernel.pad_top or kernel.pad_left or below or right)


def emit_padding(kernel: Any, x: tirx.Buffer, x_offset: int, channels: int, zero_point: tirx.Expr) -> tirx.Buffer:
    """Emit block "pad", a copy of channels [x_offset, x_offset + C) with a border of zero points, and return it.

    The result is [N, (OH-1)*stride_h + KH, (OW-1)*stride_w + KW, C], x's dtype: exactly the pixels that windows see.
    """
    oh, ow = output_extent(kernel)
    height = (oh - 1) * kernel.stride_h + kernel.kh
    width = (ow - 1) * kernel.stride_w + kernel.kw
    padded = scratch("padded", (kernel.n, height, width, channels), str(x.dtype))
    with block("pad", "SSSS", (kernel.n, height, width, channels)) as (n, i, j, c):
        ih, iw = i - kernel.pad_top, j - kernel.pad_left
        inside = tirx.all(ih >= 0, ih < kernel.h, iw >= 0, iw < kernel.w)
        value = tirx.if_then_else(inside, x[n, ih, iw, c + x_offset], zero_point.astype(str(x.dtype)))
        store(padded, (n, i, j, c), value)
    return padded


def padded_taps(kernel: Any, x: np.ndarray, zero_point: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield (kh, kw, [N, OH, OW, C] of x's dtype) for each tap: what every window position sees there."""
    pads = ((0, 0), (kernel.pad_top, kernel.pad_bottom), (kernel.pad_left, kernel.pad_right), (0, 0))
    padded = np.pad(x, pads, constant_values=x.dtype.type(zero_point))
    oh, ow = output_extent(kernel)
    for kh in range(kernel.kh):
        for kw in range(kernel.kw):
            rows = slice(kh, kh + (oh - 1) * kernel.stride_h + 1, kernel.stride_h)
            columns = slice(kw, kw + (ow - 1) * kernel.stride_w + 1, kernel.stride_w)
            yield kh, kw, padded[:, rows, columns]
