"""Small integers as short text: how a recipe holds the rounding of every weight."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Sequence
from math import prod

import numpy as np
import torch

from edgenext_tvm.errors import UserError


def pack_levels(differences: torch.Tensor) -> str:
    """Integers in [-128, 127], any shape, as base64 of zlib of int8; equal input gives equal text."""
    values = differences.numpy()
    assert values.size == 0 or (values.min() >= -128 and values.max() <= 127)
    return base64.b64encode(zlib.compress(values.astype(np.int8).tobytes(), 6)).decode("ascii")


def unpack_levels(text: str, shape: Sequence[int], field: str) -> torch.Tensor:
    """What `pack_levels` packed, int16 of `shape`. UserError, naming the recipe's `field`, where it is not that."""
    count = prod(shape)
    try:
        # never more than expected: a few bytes of zlib can stand for gigabytes
        unpacker = zlib.decompressobj()
        values = unpacker.decompress(base64.b64decode(text, validate=True), count + 1)
    except (binascii.Error, zlib.error) as error:
        raise UserError(f"recipe field '{field}' is damaged ({error}); make the recipe again") from error
    if len(values) != count or not unpacker.eof:
        raise UserError(f"recipe field '{field}' does not hold {count} values, one per weight; make the recipe again")
    return torch.from_numpy(np.frombuffer(values, np.int8).astype(np.int16).reshape(tuple(shape)))
