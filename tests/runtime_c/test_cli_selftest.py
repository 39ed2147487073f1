"""--selftest: runs the golden vectors that are linked in; PASS exits 0, FAIL exits 1 and says where."""

from __future__ import annotations

import zlib

import numpy as np
import pytest


@pytest.fixture
def good(xorshift, twin, tables, pillow):
    def image(seed, width, height, with_logits):
        x = tables(pillow(xorshift(seed, width * height * 3).reshape(height, width, 3), 10, 8))
        fields = {"kind": "ENX_GOLDEN_IMAGE", "seed": seed, "width": width, "height": height}
        crc = {"expected_crc32": f"{zlib.crc32(x.tobytes())}u"}
        return fields | crc | ({"logits": twin(x)} if with_logits else {})

    gradient = (
        (((np.arange(192, dtype=np.uint32) * np.uint32(555)) >> 7) & 255).astype(np.uint8).view(np.int8)
    )
    return [
        {"kind": "ENX_GOLDEN_RANDOM", "seed": "4242u", "logits": twin(xorshift(4242, 192).view(np.int8))},
        {"kind": "ENX_GOLDEN_CONSTANT", "value": -7, "logits": twin(np.full(192, -7, np.int8))},
        {"kind": "ENX_GOLDEN_GRADIENT", "seed": "555u", "logits": twin(gradient)},
        image(3, 57, 40, True),
        image(4, 5, 5, False),
    ]


@pytest.fixture
def selftest(build_cli, golden, tmp_path):
    def build(name, vectors):
        source = tmp_path / f"{name}.c"
        source.write_text(golden(vectors))
        return build_cli(name, "-DTINY_GOLDEN", extra=(source,))

    return build


def test_good_vectors_pass_on_any_number_of_threads(selftest, good):
    program = selftest("golden_good", good)
    for threads in (1, 4):
        result = program("--selftest", "--threads", threads)
        assert (result.code, result.err) == (0, "")
        assert result.out == f"selftest PASS: 5 of 5 vectors, threads {threads}\n"
    assert program("--selftest", "--json").json() == {
        "model": "tiny", "selftest": "PASS", "vectors": 5, "failed": 0, "threads": 1,
    }  # fmt: skip


def test_wrong_vectors_fail_and_are_named(selftest, good):
    wrong = [dict(v) for v in good]
    logits = np.array(wrong[1]["logits"])
    logits[3] += np.float32(0.125)
    wrong[1]["logits"] = logits
    wrong[4]["expected_crc32"] = "0x12345678u"
    wrong.append({"kind": "ENX_GOLDEN_RANDOM", "seed": 0, "logits": logits})
    result = selftest("golden_wrong", wrong)("--selftest")
    assert (result.code, result.out) == (1, "selftest FAIL: 3 of 6 vectors, threads 1\n")
    lines = result.err.splitlines()
    assert lines[0] == f"vector 1: logit 3 is {good[1]['logits'][3]:.9g}, expected {logits[3]:.9g}"
    assert lines[1].startswith("vector 4: preprocessing of 5 x 5 pixels gives CRC-32 ")
    assert lines[1].endswith("expected 12345678")
    assert lines[2] == "vector 5: the golden vector is malformed" and len(lines) == 3
