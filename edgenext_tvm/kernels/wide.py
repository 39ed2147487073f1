"""Wide tensors: activations stored as int16 whose values keep to a 12-bit grid, 16 times finer than int8.

real = scale * (q - zero_point), q and zero_point in [WIDE_QMIN, WIDE_QMAX]. 12 of the 16 bits: rounding is 24 dB finer
than int8's, which is more than any layer has use for, and with no more than 12 bits
- an int32 accumulator holds every layer of up to 8256 products a result (2048 * 127 * n < 2^31);
- layer_norm's sum of squares fits int32 up to WIDE_MAX_CHANNELS channels (2048^2 * C < 2^31);
- a residual's two parts fit the fixed point of an epilogue: 7 fraction bits for the layer's part, 15 for the other's
  factor, where both tensors have the same scale (`epilogue`);
- the range seen from any zero point, 4095, is far inside what `requantize` rounds exactly.
"""

from __future__ import annotations

WIDE_QMIN, WIDE_QMAX = -2048, 2047
ACTIVATION_DTYPES = ("int8", "int16")
"""How an activation between kernels may be stored; int16 means a wide tensor."""
QRANGE = {"int8": (-128, 127), "int16": (WIDE_QMIN, WIDE_QMAX)}
"""Least and largest value by dtype."""
WIDE_MAX_CHANNELS = 511
"""Channels of a wide tensor that layer_norm reads: above it the sum of squares may exceed int32."""


def levels(dtype: str) -> int:
    """Return how many values an activation of that dtype has: 256 or 4096."""
    low, high = QRANGE[dtype]
    return high - low + 1
