"""Golden vectors of a build: inputs that the C runtime generates itself, with the logits that every target must give.

The expected logits of an int8 module come from the NumPy twins and hold bit for bit. Where a module has kernels
without a twin, and for float32 modules, they come from the float or QDQ program in PyTorch and hold within a tolerance.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
import tvm

from edgenext_tvm.codegen.meta import GoldenVector, input_table_float, input_table_int8
from edgenext_tvm.quantize.preprocess import Preprocessing
from edgenext_tvm.verify.reference import ReferenceProgram

RANDOM_SEED = 0x9E3779B9
GRADIENT_SEED = 2654435761
IMAGE_SEED = 20240229
IMAGE_WIDTH, IMAGE_HEIGHT = 61, 47
FLOAT32_ELEMENT = np.float32(1 / 64)
# float32 sums in another order differ by about 1e-6 relative per layer; 1e-3 of the largest logit leaves room
FLOAT_TOLERANCE = 1e-3
# a QDQ program rounds where the integer kernels do not: it tells a wrong build from a right one, no more
QDQ_TOLERANCE = 0.25

Logits = Callable[[np.ndarray], np.ndarray]
"""Float32 [1,S,S,3] real values, normalised, to float32 [1, num_classes]."""


def xorshift_bytes(seed: int, count: int) -> np.ndarray:
    """uint8 [count]: the top bytes of a xorshift32 stream (Marsaglia 2003, shifts 13, 17, 5)."""
    state = seed & 0xFFFFFFFF
    out = np.empty(count, np.uint8)
    for i in range(count):
        state ^= (state << 13) & 0xFFFFFFFF
        state ^= state >> 17
        state ^= (state << 5) & 0xFFFFFFFF
        out[i] = state >> 24
    return out


def random_input(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """int8 elements of a RANDOM vector."""
    return xorshift_bytes(seed, int(np.prod(shape))).view(np.int8).reshape(shape)


def gradient_input(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """int8 elements of a GRADIENT vector: ((i * seed) mod 2^32) >> 7, low byte."""
    index = np.arange(int(np.prod(shape)), dtype=np.uint64)
    product = (index * np.uint64(seed)) & np.uint64(0xFFFFFFFF)
    return ((product >> np.uint64(7)) & np.uint64(255)).astype(np.uint8).view(np.int8).reshape(shape)


def image_input(pixels: np.ndarray, preprocessing: Preprocessing, quantization: tuple[float, int] | None) -> np.ndarray:
    """The network's input [1,S,S,3] for one RGB image u8 [H,W,3]: int8 where quantized, else float32."""
    if quantization is None:
        table: np.ndarray = input_table_float(preprocessing)
    else:
        table = input_table_int8(preprocessing, *quantization)
    levels = preprocessing.pixels(pixels)
    return np.ascontiguousarray(table[np.arange(3), levels][None])


def golden_vectors(
    mod: tvm.IRModule,
    reference: ReferenceProgram | None,
    float_logits: Logits,
    quantization: tuple[float, int] | None,
    preprocessing: Preprocessing | None,
) -> list[GoldenVector]:
    """RANDOM, GRADIENT and CONSTANT inputs with their logits, and an IMAGE with its CRC where there is preprocessing.

    reference: the module's twins, or None where some kernel has none. quantization: (scale, zero point) of the input.
    """
    shape = tuple(int(size) for size in mod["main"].params[0].ty.shape)

    def expected(elements: np.ndarray) -> tuple[np.ndarray, float]:
        if reference is not None:
            return reference(elements)[0], 0.0
        if quantization is None:
            logits = float_logits(elements.astype(np.float32) * FLOAT32_ELEMENT)[0]
            return logits, FLOAT_TOLERANCE * float(np.abs(logits).max() + 1)
        scale, zero_point = quantization
        logits = float_logits((elements.astype(np.float32) - np.float32(zero_point)) * np.float32(scale))[0]
        return logits, QDQ_TOLERANCE * float(np.abs(logits).max() + 1)

    def vector(kind: str, elements: np.ndarray, seed: int = 0, value: int = 0) -> GoldenVector:
        logits, tolerance = expected(elements)
        return GoldenVector(kind, seed=seed, value=value, expected_logits=logits, tolerance=tolerance)

    vectors = [
        vector("RANDOM", random_input(RANDOM_SEED, shape), seed=RANDOM_SEED),
        vector("GRADIENT", gradient_input(GRADIENT_SEED, shape), seed=GRADIENT_SEED),
        vector("CONSTANT", np.full(shape, 64, np.int8), value=64),
    ]
    if preprocessing is not None:
        pixels = xorshift_bytes(IMAGE_SEED, IMAGE_WIDTH * IMAGE_HEIGHT * 3)
        image = pixels.reshape(IMAGE_HEIGHT, IMAGE_WIDTH, 3)
        crc32 = zlib.crc32(image_input(image, preprocessing, quantization).tobytes())
        vectors.append(GoldenVector("IMAGE", seed=IMAGE_SEED, width=IMAGE_WIDTH, height=IMAGE_HEIGHT, crc32=crc32))
    return vectors
