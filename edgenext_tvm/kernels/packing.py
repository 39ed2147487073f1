"""Constant arguments in the layout that a scheduled kernel reads, computed from the canonical ones at build time.

A lowered module, its JSON and the NumPy twins know weights as each kernel's docstring states them. A schedule may want
another layout: it changes the type of that parameter and says so in the attribute PACKINGS_ATTR of the function it
returns. Code generation then stores the packed array in place of the canonical one.
"""

from __future__ import annotations

import dataclasses
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from tvm import tirx

PACKINGS_ATTR = "enx.packings"

_PACKINGS: dict[str, type[Packing]] = {}


@dataclasses.dataclass(frozen=True)
class Packing(ABC):
    """One argument of a kernel in another layout. Fields are ints, strings or tuples of ints.

    argument  index of the parameter that reads the packed array
    sources   indices of the canonical arguments that `pack` is computed from; all must be constants
    """

    argument: int
    sources: tuple[int, ...]

    kind: ClassVar[str] = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.kind:
            _PACKINGS[cls.kind] = cls

    @abstractmethod
    def pack(self, *arrays: np.ndarray) -> np.ndarray:
        """Return the packed array for the canonical `sources`; equal arguments give equal bytes."""


def with_packings(func: tirx.PrimFunc, packings: Sequence[Packing]) -> tirx.PrimFunc:
    """Return `func` with the attribute that says which of its arguments are packed, and how."""
    rows = [{"kind": packing.kind, **dataclasses.asdict(packing)} for packing in packings]
    return func.with_attr(PACKINGS_ATTR, json.dumps(rows, sort_keys=True))


def packings_of(func: tirx.PrimFunc) -> tuple[Packing, ...]:
    """Return how the constant arguments of `func` are packed; empty for a function that reads canonical ones."""
    text = (func.attrs or {}).get(PACKINGS_ATTR)
    found = []
    for row in json.loads(str(text)) if text is not None else []:
        packing: type = _PACKINGS[row.pop("kind")]
        found.append(packing(**{key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}))
    return tuple(found)


def pack_arguments(func: tirx.PrimFunc, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return canonical arguments as `func` reads them."""
    packed = list(arrays)
    for packing in packings_of(func):
        packed[packing.argument] = packing.pack(*(arrays[source] for source in packing.sources))
    return packed


def round_up(n: int, multiple: int) -> int:
    """Return the least multiple of `multiple` that is at least n."""
    return -(-n // multiple) * multiple


@dataclasses.dataclass(frozen=True)
class PackedDots(Packing):
    """Weights [.., K, CO] for instructions that add `group` products into each of `lanes` sums, zero padded.

    The leading axes and K are split into segments of `segment` rows, contiguous in the input (0: all rows).
    Result int8[ceil(CO / lanes), segments, ceil(segment / group), lanes, group].
    """

    lanes: int
    group: int
    segment: int = 0

    kind = "dots"

    def pack(self, *arrays: np.ndarray) -> np.ndarray:
        """See the class docstring."""
        (w,) = arrays
        co = w.shape[-1]
        rows = w.reshape(-1, self.segment or w.size // co, co)
        segments, length, _ = rows.shape
        shape = (segments, round_up(length, self.group), round_up(co, self.lanes))
        padded = np.zeros(shape, np.int8)
        padded[:, :length, :co] = rows
        tiles = padded.reshape(segments, shape[1] // self.group, self.group, shape[2] // self.lanes, self.lanes)
        return np.ascontiguousarray(tiles.transpose(3, 0, 1, 4, 2))


class PackedWideDots(PackedDots):
    """The same as int16, for instructions that multiply int16 by int16."""

    kind = "wide_dots"

    def pack(self, *arrays: np.ndarray) -> np.ndarray:
        """See the class docstring."""
        return super().pack(*arrays).astype(np.int16)


@dataclasses.dataclass(frozen=True)
class BiasOfUnsigned(Packing):
    """int32[CO] sums that start a product whose inputs are x + 128 instead of x: bias - 128 * sum of weights.

    Sources: bias int32[CO], w int8[.., CO]. Zero padded to a multiple of `lanes`.
    """

    lanes: int

    kind = "bias_of_unsigned"

    def pack(self, *arrays: np.ndarray) -> np.ndarray:
        """See the class docstring; wraps like the sums it starts."""
        bias, w = arrays
        sums = w.reshape(-1, bias.size).sum(axis=0, dtype=np.int64)
        corrected = (bias.astype(np.int64) - 128 * sums).astype(np.int32)
        return np.pad(corrected, (0, -bias.size % self.lanes))


@dataclasses.dataclass(frozen=True)
class PaddedChannels(Packing):
    """A value per channel, [.., CO] zero padded to a multiple of `lanes`, so that whole vectors may be read."""

    lanes: int

    kind = "padded_channels"

    def pack(self, *arrays: np.ndarray) -> np.ndarray:
        """See the class docstring."""
        (values,) = arrays
        pads = [(0, 0)] * (values.ndim - 1) + [(0, -values.shape[-1] % self.lanes)]
        return np.ascontiguousarray(np.pad(values, pads))
