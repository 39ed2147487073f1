"""Golden inputs are exactly those of the C runtime; their logits are the twins' where there are twins."""

from __future__ import annotations

import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest

from edgenext_tvm.board import load_board
from edgenext_tvm.codegen.toolchain import Toolchain
from edgenext_tvm.quantize.preprocess import Preprocessing
from edgenext_tvm.verify.build_folder import LOWERED_FILE
from edgenext_tvm.verify.golden import (
    GRADIENT_SEED,
    QDQ_TOLERANCE,
    golden_vectors,
    gradient_input,
    image_input,
    random_input,
)
from edgenext_tvm.verify.quantization import input_quantization
from edgenext_tvm.verify.reference import ReferenceProgram, load_lowered

# the definitions of enx_golden.h, written down once more in C
STREAMS = """
#include <stdint.h>
#include <stdio.h>
int main(void) {
    uint32_t x = 12345u;
    for (int i = 0; i < 64; ++i) {
        x ^= x << 13; x ^= x >> 17; x ^= x << 5;
        printf("%d ", (int)(int8_t)(x >> 24));
    }
    for (uint32_t i = 0; i < 64; ++i) printf("%d ", (int)(int8_t)(((i * 2654435761u) >> 7) & 255u));
    return 0;
}
"""


def test_random_and_gradient_inputs_are_those_of_the_c_definition(tmp_path: Path) -> None:
    (tmp_path / "streams.c").write_text(STREAMS)
    toolchain = Toolchain.for_board(load_board("host"))
    program = toolchain.link_executable(toolchain.compile([tmp_path / "streams.c"], tmp_path), tmp_path / "streams")
    printed = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    expected = np.asarray(printed.split(), np.int8)
    assert np.array_equal(random_input(12345, (64,)), expected[:64])
    assert np.array_equal(gradient_input(GRADIENT_SEED, (64,)), expected[64:])


def test_an_image_becomes_int8_through_one_table_per_channel() -> None:
    preprocessing = Preprocessing(resize_size=64, crop_size=64, mean=(0.5, 0.5, 0.5), std=(0.5, 0.25, 0.125))
    white = np.full((64, 64, 3), 255, np.uint8)
    quantized = image_input(white, preprocessing, (0.1, 3))
    assert quantized.shape == (1, 64, 64, 3) and quantized.dtype == np.int8
    # (1 - 0.5) / std / 0.1 + 3
    assert quantized[0, 0, 0].tolist() == [13, 23, 43]
    assert image_input(white, preprocessing, None)[0, 0, 0].tolist() == [1.0, 2.0, 4.0]


def test_the_vectors_carry_the_twins_logits_without_tolerance(host_build: Path) -> None:
    lowered = load_lowered(host_build / LOWERED_FILE)
    reference = ReferenceProgram(lowered)
    preprocessing = Preprocessing(resize_size=64, crop_size=64)

    def not_asked(x: np.ndarray) -> np.ndarray:
        raise AssertionError("the twins decide")

    vectors = golden_vectors(lowered, reference, not_asked, input_quantization(lowered), preprocessing)
    assert [vector.kind for vector in vectors] == ["RANDOM", "GRADIENT", "CONSTANT", "IMAGE"]
    constant = reference(np.full(reference.input_shape, 64, np.int8))[0]
    assert np.array_equal(vectors[2].expected_logits, constant)
    assert [vector.tolerance for vector in vectors] == [0.0] * 4
    assert 0 < vectors[3].crc32 < 2**32 and vectors[3].crc32 != zlib.crc32(b"")


def test_without_twins_the_program_in_pytorch_decides_within_a_tolerance(host_build: Path) -> None:
    lowered = load_lowered(host_build / LOWERED_FILE)
    scale, zero_point = input_quantization(lowered) or (0.0, 0)
    seen: list[np.ndarray] = []

    def logits(x: np.ndarray) -> np.ndarray:
        seen.append(x)
        return np.asarray([[1.0, -3.0]], np.float32)

    vectors = golden_vectors(lowered, None, logits, (scale, zero_point), None)
    assert [vector.tolerance for vector in vectors] == [pytest.approx(QDQ_TOLERANCE * 4)] * 3
    assert seen[2].dtype == np.float32
    assert seen[2].flat[0] == pytest.approx((64 - zero_point) * scale)
