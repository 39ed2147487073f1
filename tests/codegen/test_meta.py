from __future__ import annotations

import numpy as np
import pytest

from edgenext_tvm.codegen.meta import GoldenVector, ModelMeta, input_table_float, input_table_int8
from edgenext_tvm.errors import UserError
from edgenext_tvm.quantize.preprocess import Preprocessing


def test_the_tables_are_the_reference_preprocessing_level_by_level():
    preprocessing = Preprocessing(resize_size=16, crop_size=16)
    image = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    expected = preprocessing(image)
    table = input_table_float(preprocessing)
    np.testing.assert_array_equal(table, expected.reshape(3, 256))
    quantized = input_table_int8(preprocessing, 0.0186, -14)
    np.testing.assert_array_equal(quantized, np.clip(np.rint(table * np.float32(1 / 0.0186)) - 14, -128, 127))
    assert quantized.dtype == np.int8


def test_a_name_that_is_no_identifier_is_refused():
    with pytest.raises(UserError, match=r"model name 'my-net' is not a C identifier; use letters"):
        ModelMeta("my-net", "my-net", "int8")


def test_an_unknown_precision_is_refused():
    with pytest.raises(UserError, match="precision 'int4' is unknown; allowed: int8, float32"):
        ModelMeta("net", "net", "int4")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "NOISE"}, "kind 'NOISE' is unknown; allowed: RANDOM, CONSTANT, GRADIENT, IMAGE"),
        ({"kind": "RANDOM", "seed": 0, "expected_logits": np.zeros(1)}, "seed 0 is out of range; xorshift32 needs 1"),
        ({"kind": "CONSTANT"}, "kind CONSTANT has no expected logits; only IMAGE may omit them"),
    ],
)
def test_malformed_golden_vectors_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        GoldenVector(**arguments)
