"""Where the left operand of a product lies: rows of a dense layer, or the windows of a convolution."""

from __future__ import annotations

from dataclasses import dataclass

from ...kernels import Conv2d, Dense
from ...kernels.packing import round_up
from ...kernels.window import needs_padding

MAX_GATHERED = 64
"""Inputs of a window that may be gathered from rows that are not whole vectors."""
MAX_EXPANDED_GROUPS = 62
"""Groups of eight inputs of a row in one buffer on the stack: 992 bytes expanded."""


@dataclass(frozen=True)
class Rows:
    """`count` rows, each `segments` runs of `length` inputs, contiguous in memory; a tile of them divides `tile_of`.

    gathered: the runs are too short for vectors and are joined in registers, four inputs at a time.
    """

    count: int
    segments: int
    length: int
    tile_of: int
    gathered: bool = False

    @property
    def inputs(self) -> int:
        """Inputs of one row."""
        return self.segments * self.length

    @property
    def runs(self) -> tuple[int, int]:
        """(segments, length) as the products see them."""
        return (1, self.inputs) if self.gathered else (self.segments, self.length)

    @property
    def joinable(self) -> bool:
        """Whether an expanded row is one segment: that needs segments of whole groups of eight, or one segment."""
        fits_one_part = self.length % 8 == 0 and self.inputs <= 8 * MAX_EXPANDED_GROUPS
        return self.gathered or self.segments == 1 or fits_one_part

    @property
    def parts(self) -> list[tuple[int, int]]:
        """(first, count) of the buffers that hold an expanded row, in groups of eight inputs."""
        groups = -(-self.inputs // 8)
        parts = -(-groups // MAX_EXPANDED_GROUPS)
        per_part = round_up(-(-groups // parts), 2)
        return [(at, min(per_part, groups - at)) for at in range(0, groups, per_part)]


def rows_of(kernel: Dense | Conv2d) -> Rows | None:
    """Return the left operand of a kernel, or None if its runs do not suit vectors of four."""
    if isinstance(kernel, Dense):
        return Rows(kernel.t, 1, kernel.ci, kernel.t) if kernel.ci % 4 == 0 else None
    length = kernel.kw * kernel.ci
    if needs_padding(kernel) or length % 4:
        return None
    oh, ow = kernel.out_hw
    gathered = length % 8 != 0 and kernel.kh * length <= MAX_GATHERED
    return Rows(kernel.n * oh * ow, kernel.kh, length, ow, gathered)
