"""The command line: results on stdout, progress on stderr, one JSON object with --json, one error and status 2."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from edgenext_tvm import cli

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs `edgenext-tvm ARGUMENTS`: (status, stdout, stderr), as the process would give them."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["edgenext-tvm", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capfd.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cli") / "build"


def error_of(command: Command, *arguments: object) -> str:
    """The one error line of a mistake; checks status, silence on stdout and that there is no traceback."""
    status, out, err = command(*arguments)
    assert (status, out) == (2, "")
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def test_boards_lists_the_bundled_ones(command: Command) -> None:
    status, out, _ = command("boards")
    assert status == 0 and "rpi4" in out and "Cortex-A72" in out
    listed = json.loads(command("boards", "--json")[1])["boards"]
    assert [board["name"] for board in listed] == ["cortex-a55", "host", "host-avx2", "rpi2", "rpi3", "rpi4", "rpi5"]
    assert listed[4]["cpu"]["isa"] == "aarch64"


def test_models_lists_the_variants_with_their_cost(command: Command) -> None:
    status, out, _ = command("models")
    assert status == 0 and "edgenext_small" in out
    rows = json.loads(command("models", "--json")[1])["models"]
    assert len(rows) == 7
    assert rows[0]["model"] == "edgenext_xx_small" and rows[0]["bundled_checkpoint"]
    assert 1_300_000 < rows[0]["parameters"] < 1_350_000
    assert rows[2]["bundled_checkpoint"] is None


def test_compile_prints_one_json_object_and_the_stages_on_stderr(command: Command, compiled: Path) -> None:
    options = ("--input-size", 64, "--calibration", "synthetic:2", "--out", compiled, "--json")
    status, out, err = command("compile", "edgenext_xx_small", "--board", "host", *options)
    result = json.loads(out)
    assert status == 0 and result["selftest"] is True
    assert (result["model"], result["board"], result["build_dir"]) == ("edgenext_xx_small", "host", str(compiled))
    assert list(result["stages"]) == ["model", "quantize", "import", "lower", "golden", "build", "selftest"]
    assert 0 < result["arena_bytes"] < 100_000 and 1_000_000 < result["flash_bytes"] < 2_000_000
    assert result["madds"] > 10_000_000 and 0 < result["kernels"] <= result["kernel_calls"]
    shown = err.splitlines()
    assert any(line.split()[:2] == ["input-size", "64"] for line in shown)
    assert [line.split()[0] for line in shown if " s  " in line] == list(result["stages"])
    assert (compiled / "manifest.json").is_file() and (compiled / "recipe.json").is_file()


def test_verify_run_and_bench_use_the_build(command: Command, host_build: Path, tmp_path: Path) -> None:
    report = json.loads(command("verify", host_build, "--images", "synthetic:2", "--json")[1])
    assert report["images"] == 2 and report["bit_identical_to_reference"] is True and report["passed"] is True
    status, out, _ = command("verify", host_build, "--limit", 1)
    assert status == 0 and "PASS" in out and "made-up images" in out

    pixels = np.random.default_rng(0).integers(0, 256, (30, 45, 3)).astype(np.uint8)
    for name in ("a.png", "b.jpg"):
        Image.fromarray(pixels).save(tmp_path / name)
    images = (tmp_path / "a.png", tmp_path / "b.jpg")
    results = json.loads(command("run", host_build, *images, "--top", 3, "--json")[1])["images"]
    assert [result["file"] for result in results] == [str(path) for path in images]
    assert len(results[0]["top"]) == 3 and results[0]["top"][0]["logit"] >= results[0]["top"][1]["logit"]
    status, out, _ = command("run", host_build, images[0])
    assert status == 0 and "a.png" in out and results[0]["top"][0]["name"] in out

    timing = json.loads(command("bench", host_build, "--threads", 2, "--repeat", 3, "--json")[1])
    assert 0 < timing["min_ms"] <= timing["median_ms"] and (timing["threads"], timing["repeat"]) == (2, 3)
    status, out, _ = command("bench", host_build, "--repeat", 2, "--profile")
    assert status == 0 and "median ms" in out and "stem" in out


@pytest.mark.slow
def test_a_recipe_rebuilds_without_calibration_and_gives_the_same_constants(
    command: Command, host_build: Path, tmp_path: Path
) -> None:
    options = ("--input-size", 64, "--recipe", host_build / "recipe.json", "--out", tmp_path / "again", "--json")
    assert command("compile", "edgenext_xx_small", *options)[0] == 0
    first, again = (json.loads((path / "manifest.json").read_text()) for path in (host_build, tmp_path / "again"))
    assert first["constants_sha256"] == again["constants_sha256"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("compile", "edgenext_huge"), "unknown model 'edgenext_huge'; the variants are"),
        (("compile", "edgenext_small"), "no weights of edgenext_small come with the package"),
        (("compile", "edgenext_xx_small", "--board", "rpi9"), "unknown board 'rpi9'; known boards: cortex-a55, host"),
        (
            ("compile", "edgenext_xx_small", "--precision", "int4"),
            "precision 'int4' is unknown; allowed: int8, float32",
        ),
        (("compile", "edgenext_xx_small", "--input-size", "100"), "input size 100 is not possible"),
        (("compile", "edgenext_xx_small", "--threads", "0"), "threads is 0; allowed: 1 to 16"),
        (("compile", "edgenext_xx_small", "--recipe", "r", "--calibration", "c"), "exclude each other"),
        (("compile", "edgenext_xx_small", "--precision", "float32", "--recipe", "r"), "quantizes nothing"),
        (("compile", "edgenext_xx_small", "--max-arena-kib", "0"), "--max-arena-kib is 0; allowed: 1 or more"),
        (("compile", "gone.pt2"), "no quantized program at gone.pt2"),
        (("compile", "gone.onnx"), "gone.onnx: no such file"),
        (("compile", "gone.pt2", "--input-size", "64"), "is already quantized and fixed; remove --input-size"),
        (("compile", "edgenext_xx_small", "--calibration", "/nowhere"), "no images at /nowhere"),
        (("compile", "edgenext_xx_small", "--input-size", "many"), "'many' is not a valid integer"),
        (("compile", "edgenext_xx_small", "--out", "/dev/null"), "/dev/null is a file; give the name of a folder"),
        (("compile", "edgenext_xx_small", "--out", "/dev/null/b"), "cannot create /dev/null/b: /dev/null is a file"),
        (("compile", "edgenext_xx_small", "--out", "/usr"), "/usr exists and is not a build folder (no manifest.json)"),
        (("compile",), "Missing argument 'MODEL'; try `edgenext-tvm compile --help`"),
        (("compile", "edgenext_xx_small", "--bord", "rpi4"), "No such option '--bord'. Did you mean '--board'?"),
        (("frobnicate",), "No such command 'frobnicate'"),
        (("verify", "/nowhere"), "no build folder at /nowhere; give a folder written by `edgenext-tvm compile`"),
        (("verify", "x" * 300), "cannot use xxx"),
        (("run", "/nowhere", "x.png"), "no build folder at /nowhere"),
        (("run", "/nowhere"), "Missing argument 'IMAGE...'"),
        (("bench", "/nowhere", "--repeat", "0"), "repeat is 0; allowed: 1 to 1000000"),
    ],
)
def test_a_mistake_is_one_error_with_status_2(command: Command, arguments: tuple[str, ...], expected: str) -> None:
    assert expected in error_of(command, *arguments)


def test_without_a_command_the_help_is_shown_and_no_error(command: Command) -> None:
    status, out, err = command()
    assert (status, out) == (2, "")
    assert err.startswith("Usage: edgenext-tvm") and "error:" not in err


def test_a_recipe_of_another_model_or_size_says_whose_it_is(command: Command, host_build: Path, tmp_path: Path) -> None:
    recipe = host_build / "recipe.json"
    (tmp_path / "other.json").write_text(recipe.read_text().replace("edgenext_xx_small", "edgenext_small"))
    error = error_of(command, "compile", "edgenext_xx_small", "--recipe", tmp_path / "other.json")
    assert "other.json was made for edgenext_small, not for edgenext_xx_small" in error
    error = error_of(command, "compile", "edgenext_xx_small", "--recipe", recipe, "--input-size", 96)
    assert "recipe.json was made for 64 pixels, but the model takes 96; give --input-size 64" in error


def test_a_float_onnx_file_is_told_to_be_quantized_first(command: Command, tmp_path: Path) -> None:
    image, logits = (onnx.helper.make_tensor_value_info(name, 1, [1, 3, 8, 8]) for name in ("x", "y"))
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "float", [image], [logits])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)]), tmp_path / "float.onnx")
    error = error_of(command, "compile", tmp_path / "float.onnx", "--out", tmp_path / "build")
    assert "float.onnx is not quantized" in error and "give a QDQ program" in error


def test_mistakes_with_a_build_are_told(command: Command, host_build: Path, tmp_path: Path) -> None:
    (tmp_path / "no.png").write_text("no image")
    assert "cannot be decoded" in error_of(command, "run", host_build, tmp_path / "no.png")
    assert "cannot read image" in error_of(command, "run", host_build, tmp_path / "gone.png")
    assert "top is 11; allowed: 1 to 10" in error_of(command, "run", host_build, "x.png", "--top", 11)
    assert "unknown runner 'adb'" in error_of(command, "verify", host_build, "--runner", "adb")


def test_an_arena_over_the_limit_builds_nothing(command: Command, host_build: Path, tmp_path: Path) -> None:
    out = tmp_path / "build"
    options = ("--input-size", 64, "--recipe", host_build / "recipe.json", "--max-arena-kib", 4, "--out", out)
    error = error_of(command, "compile", "edgenext_xx_small", *options)
    assert "more than --max-arena-kib 4 (no plan can go below" in error and "smaller --input-size" in error
    assert not out.exists()


def test_with_json_an_error_is_an_object_too(command: Command) -> None:
    status, out, err = command("verify", "/nowhere", "--json")
    assert status == 2
    assert json.loads(out)["error"] in err
