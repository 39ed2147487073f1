"""Builds of the C runtime with the hand-written models, and NumPy twins of what they compute."""

from __future__ import annotations

import ctypes
import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgenext_tvm.paths import RUNTIME_C

HERE = Path(__file__).parent
LIBRARY_SOURCES = sorted((RUNTIME_C / "src").glob("*.c"))
CLI_SOURCES = sorted((RUNTIME_C / "cli").glob("*.c"))
WARNINGS = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror"]
INCLUDES = [f"-I{RUNTIME_C}/include", f"-I{RUNTIME_C}/src", f"-I{RUNTIME_C}/cli"]
ASAN = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
OK, SIDE, CLASSES = 0, 8, 4


def compile_c(output: Path, sources: list[Path], *flags: str, compiler: list[str] | None = None) -> Path:
    """`output`, compiled and linked from C sources; the compiler's messages are the failure."""
    files = [*map(str, sources), "-o", str(output), "-lm"]
    command = [*(compiler or ["gcc"]), "-std=c99", "-O1", *INCLUDES, *flags, *files]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return output


class Context(ctypes.Structure):
    """enx_context_t"""

    _fields_ = [
        ("model", ctypes.c_void_p),
        ("arena", ctypes.c_void_p),
        ("arena_bytes", ctypes.c_size_t),
        ("pool", ctypes.c_void_p),
        ("failed_step", ctypes.c_uint32),
    ]


class Memory:
    """`bytes_` bytes at an address that is a multiple of 64 plus `shift`, with guard bytes behind."""

    def __init__(self, bytes_: int, shift: int = 0) -> None:
        self._store = np.full(bytes_ + 64 + shift + 64, 0xA5, np.uint8)
        begin = -self._store.ctypes.data % 64 + shift
        self.array = self._store[begin : begin + bytes_]
        self._guard = self._store[begin + bytes_ :]
        self.address = self.array.ctypes.data

    @property
    def guard_is_intact(self) -> bool:
        return bool((self._guard == 0xA5).all())


class Library:
    """The runtime and the test models as a shared object."""

    def __init__(self, path: Path) -> None:
        self.c = ctypes.CDLL(str(path))
        self.c.enx_status_string.restype = ctypes.c_char_p
        self.c.enx_input.restype = ctypes.c_void_p
        self.c.enx_output.restype = ctypes.c_void_p
        self.c.enx_golden_pixel_bytes.restype = ctypes.c_size_t

    def model(self, name: str) -> ctypes.c_void_p:
        return ctypes.c_void_p(ctypes.addressof(ctypes.c_byte.in_dll(self.c, f"enx_model_{name}")))

    def init(
        self, context: Context, model: str, memory: Memory, bytes_: int | None = None, pool: int | None = None
    ) -> int:
        size = memory.array.size if bytes_ is None else bytes_
        return self.c.enx_init(
            ctypes.byref(context), self.model(model), ctypes.c_void_p(memory.address), ctypes.c_size_t(size),
            ctypes.c_void_p(pool),
        )  # fmt: skip

    def message(self, status: int) -> str:
        return self.c.enx_status_string(status).decode()


@dataclass(frozen=True)
class Ready:
    """An initialised context of `tiny` with access to its tensors."""

    library: Library
    context: Context
    memory: Memory

    def set_input(self, x: np.ndarray) -> None:
        self.memory.array[64:256] = x.astype(np.int8).reshape(-1).view(np.uint8)

    def input(self) -> np.ndarray:
        return self.memory.array[64:256].view(np.int8).reshape(SIDE, SIDE, 3).copy()

    def logits(self) -> np.ndarray:
        return self.memory.array[448:464].view(np.float32).copy()

    def run(self) -> int:
        return self.library.c.enx_run(ctypes.byref(self.context))


def tiny_twin(x: np.ndarray) -> np.ndarray:
    """The logits of `tiny` for x int8 [8, 8, 3]; float32 [4]."""
    row = np.arange(SIDE)[:, None, None]
    hidden = np.clip(2 * x.astype(np.int32).reshape(SIDE, SIDE, 3) + row, -128, 127).reshape(-1)
    i = np.arange(hidden.size)
    weights = np.stack([(i * (k + 3)) % 7 - 3 for k in range(CLASSES)])
    return (weights @ hidden).astype(np.float32) * np.float32(0.125)


def tiny_tables(pixels: np.ndarray) -> np.ndarray:
    """The per-channel tables of `tiny`: u8 [H, W, 3] -> int8."""
    v = pixels.astype(np.int32)
    return np.stack([v[..., 0] - 128, 127 - v[..., 1], v[..., 2] // 2 - 64], axis=-1).astype(np.int8)


def resize_and_crop(pixels: np.ndarray, size: int, crop: int) -> np.ndarray:
    """torchvision's Resize(size) and CenterCrop(crop) by Pillow, for u8 [H, W, 3]; rows are resampled first."""
    height, width = pixels.shape[:2]
    short, long = min(width, height), max(width, height)
    out_long = int(size * long / short)
    out_width, out_height = (size, out_long) if width <= height else (out_long, size)
    image = Image.fromarray(pixels)
    image = image.resize((out_width, height), Image.Resampling.BILINEAR)
    image = image.resize((out_width, out_height), Image.Resampling.BILINEAR)
    top, left = round((out_height - crop) / 2.0), round((out_width - crop) / 2.0)
    return np.asarray(image.crop((left, top, left + crop, top + crop)))


def xorshift_bytes(seed: int, count: int) -> np.ndarray:
    """The stream of enx_golden.h; u8 [count]."""
    state, out = seed, bytearray()
    for _ in range(count):
        state ^= (state << 13) & 0xFFFFFFFF
        state ^= state >> 17
        state ^= (state << 5) & 0xFFFFFFFF
        out.append(state >> 24)
    return np.frombuffer(bytes(out), np.uint8)


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    def json(self) -> dict:
        return json.loads(self.out)


class Program:
    """A built command line program."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, *arguments: object, runner: tuple[str, ...] = ()) -> Result:
        command = [*runner, str(self.path), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, timeout=60)
        return Result(
            done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        )

    def refuses(self, *arguments: object) -> str:
        """The one line that the program gives for wrong input, without its prefix."""
        result = self(*arguments)
        assert (result.code, result.out) == (2, ""), result
        assert result.err.count("\n") == 1 and result.err.endswith("\n"), result.err
        assert result.err.startswith("tiny: error: "), result.err
        return result.err.removeprefix("tiny: error: ").rstrip("\n")


def golden_source(vectors: list[dict]) -> str:
    """C source of `tiny_golden` for vectors given as fields of enx_golden_vector_t; logits as a list."""
    lines, rows = ['#include "enx/enx_golden.h"', "extern const enx_golden_t tiny_golden;"], []
    for i, vector in enumerate(vectors):
        fields = {
            "value": 0,
            "seed": 0,
            "width": 0,
            "height": 0,
            "expected_crc32": 0,
            "tolerance": "0.0f",
        } | vector
        logits = fields.pop("logits", None)
        fields["expected_logits"] = "NULL"
        if logits is not None:
            fields["expected_logits"] = f"logits_{i}"
            text = ", ".join(f"{float(v).hex()}f" for v in logits)
            lines.append(f"static const float logits_{i}[] = {{{text}}};")
        rows.append("    {" + ", ".join(f".{k} = {v}" for k, v in fields.items()) + "},")
    lines += ["static const enx_golden_vector_t vectors[] = {", *rows, "};"]
    lines += [f"const enx_golden_t tiny_golden = {{{len(vectors)}, vectors}};", ""]
    return "\n".join(lines)


@pytest.fixture(scope="session")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runtime_c")


@pytest.fixture(scope="session")
def library(builds: Path) -> Library:
    sources = [*LIBRARY_SOURCES, HERE / "tiny_model.c", HERE / "preprocess_probe.c"]
    return Library(compile_c(builds / "libtiny.so", sources, "-O2", "-shared", "-fPIC", "-pthread"))


@pytest.fixture
def tiny(library: Library) -> Ready:
    ready = Ready(library, Context(), Memory(1024))
    assert library.init(ready.context, "tiny", ready.memory) == OK
    return ready


@pytest.fixture(scope="session")
def build_cli(builds: Path) -> Callable[..., Program]:
    """build_cli(name, *flags, extra=[...]) -> Program of the tiny model."""

    def build(
        name: str, *flags: str, extra: tuple[Path, ...] = (), compiler: list[str] | None = None
    ) -> Program:
        sources = [*LIBRARY_SOURCES, *CLI_SOURCES, HERE / "tiny_model.c", HERE / "tiny_cli.c", *extra]
        return Program(compile_c(builds / name, sources, "-pthread", *flags, compiler=compiler))

    return build


@pytest.fixture(scope="session")
def cli(build_cli: Callable[..., Program]) -> Program:
    return build_cli("tiny")


@pytest.fixture(scope="session")
def sanitized_cli(build_cli: Callable[..., Program]) -> Program:
    """AddressSanitizer, LeakSanitizer and UndefinedBehaviorSanitizer; any finding ends the program with 1."""
    return build_cli("tiny_sanitized", *ASAN)


@pytest.fixture(scope="session")
def failing_cli(build_cli: Callable[..., Program]) -> Program:
    return build_cli("failing", "-DTINY_MODEL=enx_model_failing")


@pytest.fixture
def pool(library: Library):
    """pool(threads) -> address of an enx_pool_t, destroyed after the test."""
    opened = []

    def create(threads: int) -> int:
        memory, handle = Memory(640 + 64 * threads), ctypes.c_void_p()
        size = ctypes.c_size_t(memory.array.size)
        status = library.c.enx_pool_create(
            ctypes.c_void_p(memory.address), size, threads, ctypes.byref(handle)
        )
        assert status == OK
        opened.append((memory, handle))
        assert handle.value is not None
        return handle.value

    yield create
    for memory, handle in opened:
        assert library.c.enx_pool_destroy(handle) == OK
        assert memory.guard_is_intact


@pytest.fixture
def twin() -> Callable[[np.ndarray], np.ndarray]:
    return tiny_twin


@pytest.fixture
def tables() -> Callable[[np.ndarray], np.ndarray]:
    return tiny_tables


@pytest.fixture
def pillow() -> Callable[[np.ndarray, int, int], np.ndarray]:
    return resize_and_crop


@pytest.fixture
def xorshift() -> Callable[[int, int], np.ndarray]:
    return xorshift_bytes


@pytest.fixture
def golden() -> Callable[[list[dict]], str]:
    return golden_source


@pytest.fixture(scope="session")
def compile_sources() -> Callable[..., Path]:
    return compile_c
