"""Weight layouts of the AArch64 kernels without the dotprod extension."""

from __future__ import annotations

import dataclasses

import numpy as np

from ...errors import UserError
from ...kernels.packing import PackedDots, Packing


@dataclasses.dataclass(frozen=True)
class PackedPairs(Packing):
    """Weights [.., K, CO] for smull/smlal: eight rows of two neighbouring channels fill one register, zero padded.

    Rows are split into segments as in PackedDots. Result int8[ceil(CO / lanes), segments, ceil(segment / 8),
    lanes / 2, 16], `lanes` even; the 16 bytes are [half of the rows][channel][row of that half]. The products of both
    halves meet in one int16, which holds all of them but one: UserError where both weights are -128.
    """

    lanes: int
    segment: int = 0

    kind = "pairs"

    def pack(self, *arrays: np.ndarray) -> np.ndarray:
        """See the class docstring."""
        quads = PackedDots(self.argument, self.sources, self.lanes, 4, self.segment).pack(*arrays)
        if quads.shape[2] % 2:
            quads = np.pad(quads, ((0, 0), (0, 0), (0, 1), (0, 0), (0, 0)))
        panels, segments, fours = quads.shape[:3]
        split = quads.reshape(panels, segments, fours // 2, 2, self.lanes // 2, 2, 4)
        _check_lowest(int((split == -128).all(axis=3).sum()))
        packed = split.transpose(0, 1, 2, 4, 3, 5, 6)
        return np.ascontiguousarray(packed.reshape(panels, segments, fours // 2, self.lanes // 2, 16))


@dataclasses.dataclass(frozen=True)
class PackedQuads(Packing):
    """Weights [.., K, CO] for smull/smlal: four rows of four neighbouring channels fill one register, zero padded.

    Segments as in PackedDots, each padded to eights. Result int8[ceil(CO / lanes), segments, 2 * ceil(segment / 8),
    lanes / 4, 16]; the 16 bytes are [half of the rows][channel][row of that half]. The products of both halves meet in
    one int16: UserError where both weights are -128.
    """

    lanes: int
    segment: int = 0

    kind = "quads"

    def pack(self, *arrays: np.ndarray) -> np.ndarray:
        """See the class docstring."""
        quads = PackedDots(self.argument, self.sources, self.lanes, 4, self.segment).pack(*arrays)
        if quads.shape[2] % 2:
            quads = np.pad(quads, ((0, 0), (0, 0), (0, 1), (0, 0), (0, 0)))
        split = quads.reshape(*quads.shape[:3], self.lanes // 4, 4, 2, 2)
        _check_lowest(int((split == -128).all(axis=5).sum()))
        packed = split.transpose(0, 1, 2, 3, 5, 4, 6)
        return np.ascontiguousarray(packed.reshape(*quads.shape[:3], self.lanes // 4, 16))


def _check_lowest(lowest: int) -> None:
    if lowest:
        raise UserError(
            f"{lowest} pairs of weights are both -128 where their products with -128 are added in 16 bits, which "
            "hold at most 32767; quantize weights symmetrically to [-127, 127], or choose a board whose core has "
            "dotprod"
        )


@dataclasses.dataclass(frozen=True)
class WidenedTaps(Packing):
    """The same weights as int16, so that no instruction widens them at run time."""

    kind = "widened_taps"

    def pack(self, *arrays: np.ndarray) -> np.ndarray:
        """See the class docstring."""
        (w,) = arrays
        return w.astype(np.int16)


@dataclasses.dataclass(frozen=True)
class CentredBias(Packing):
    """int32[C] sums that start a product whose inputs are x - zp_in: bias + zp_in * sum of weights.

    Sources: bias int32[C], w int8[KH, KW, C], qp int32[2] = (zp_in, zp_out). Taps on padding then add nothing.
    """

    kind = "centred_bias"

    def pack(self, *arrays: np.ndarray) -> np.ndarray:
        """See the class docstring; wraps like the sums it starts."""
        bias, w, qp = arrays
        sums = w.reshape(-1, bias.size).sum(axis=0, dtype=np.int64)
        return (bias.astype(np.int64) + int(qp[0]) * sums).astype(np.int32)
