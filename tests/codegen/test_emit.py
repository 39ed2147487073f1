from __future__ import annotations

import subprocess

import numpy as np
import pytest

from edgenext_tvm.codegen import emit
from edgenext_tvm.codegen.c_source import C_TARGET
from edgenext_tvm.codegen.lower_program import lower_program
from edgenext_tvm.codegen.meta import GoldenVector, ModelMeta
from edgenext_tvm.codegen.program import read_program
from edgenext_tvm.errors import UserError
from edgenext_tvm.paths import RUNTIME_C
from edgenext_tvm.quantize.preprocess import Preprocessing

META = ModelMeta("small", "small test model", "int8", input_scale=0.02, input_zero_point=3)
STRICT = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O2", "-ffp-contract=off"]


@pytest.fixture(scope="module")
def lowered(small_model):
    return lower_program(read_program(small_model.mod), "enx_small", C_TARGET, lambda func: func)


@pytest.fixture(scope="module")
def vectors():
    logits = np.linspace(-2, 2, 8, dtype=np.float32)
    return [
        GoldenVector("RANDOM", seed=1, expected_logits=logits),
        GoldenVector("CONSTANT", value=-128, expected_logits=-logits, tolerance=0.5),
        GoldenVector("IMAGE", seed=9, width=31, height=17, crc32=0xDEADBEEF),
    ]


@pytest.fixture(scope="module")
def sources(lowered, vectors) -> dict[str, str]:
    return {
        **emit.emit_model(lowered, META),
        "kernels.c": emit.emit_kernels(lowered, META),
        "small_golden.c": emit.emit_golden(vectors, META, 8),
        "small_cli.c": emit.emit_cli(META, True),
        "CMakeLists.txt": emit.emit_cmake(META, ["runtime/src/run.c"], ["runtime/cli/main.c"], True),
    }


@pytest.mark.parametrize(
    "name",
    ["small.h", "small_kernels.h", "small_weights.h", "model.c", "weights.c", "small_golden.c", "CMakeLists.txt"],
)
def test_emitted_text(name, sources, check_golden):
    check_golden(name, sources[name])


def test_equal_inputs_give_equal_text(small_model, sources):
    again = lower_program(read_program(small_model.mod), "enx_small", C_TARGET, lambda func: func)
    texts = {**emit.emit_model(again, META), "kernels.c": emit.emit_kernels(again, META)}
    assert texts == {name: sources[name] for name in texts}


def compile_all(texts: dict[str, str], folder, compiler: str) -> None:
    for name, text in texts.items():
        (folder / name).write_text(text)
    for name in sorted(n for n in texts if n.endswith(".c")):
        command = [compiler, *STRICT, f"-I{RUNTIME_C / 'include'}", "-c", str(folder / name), "-o", str(folder / "o")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_everything_compiles_without_a_warning(compiler, sources, tmp_path):
    compile_all(sources, tmp_path, compiler)


def test_preprocessing_tables_and_class_names_compile(lowered, tmp_path):
    names = (
        "ordinary",
        'quote " and \\',
        "trigraph ??/",
        "ünïcode",
        "*/ comment",
        "5 after octal é5",
        "line\nbreak",
        "",
    )
    preprocessing = Preprocessing(resize_size=5, crop_size=4, class_names=names)
    meta = ModelMeta("small", "small */ model", "int8", 0.02, 3, preprocessing=preprocessing)
    compile_all(emit.emit_model(lowered, meta), tmp_path, "gcc")


def test_class_names_that_do_not_fit_are_refused(lowered):
    preprocessing = Preprocessing(resize_size=4, crop_size=4, class_names=("a", "b"))
    meta = ModelMeta("small", "small", "int8", preprocessing=preprocessing)
    with pytest.raises(UserError, match="2 class names for a model with 8 classes; give one name per class or none"):
        emit.emit_model(lowered, meta)


def test_golden_logits_that_do_not_fit_are_refused():
    vector = GoldenVector("RANDOM", seed=1, expected_logits=np.zeros(3, np.float32))
    with pytest.raises(UserError, match="a golden vector has 3 logits; the model has 8 classes"):
        emit.emit_golden([vector], META, 8)


@pytest.mark.parametrize("text", ["plain", 'a"b\\c', "??=", "é5", "tab\tnewline\n", ""])
def test_c_strings_read_back(text, tmp_path):
    source = tmp_path / "s.c"
    source.write_text(f"#include <stdio.h>\nint main(void) {{ fputs({emit.c_string(text)}, stdout); return 0; }}\n")
    subprocess.run(["cc", "-std=c99", "-trigraphs", str(source), "-o", str(tmp_path / "s")], check=True)
    assert subprocess.run([str(tmp_path / "s")], capture_output=True, check=True).stdout == text.encode()
