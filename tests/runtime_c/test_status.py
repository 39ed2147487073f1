"""enx_status_string: a sentence of its own for every code of the header."""

from __future__ import annotations

import re

from edgenext_tvm.paths import RUNTIME_C


def test_every_status_of_the_header_has_its_own_sentence(library):
    header = (RUNTIME_C / "include" / "enx" / "enx.h").read_text()
    codes = {int(v) for v in re.findall(r"^\s+ENX_(?:OK|ERR_\w+) = (-?\d+)", header, re.M)}
    assert codes == set(range(-18, 1))
    sentences = {library.message(code) for code in codes}
    assert len(sentences) == len(codes) and "unknown status" not in sentences


def test_other_values_are_unknown(library):
    assert {library.message(v) for v in (1, -19, 12345)} == {"unknown status"}
