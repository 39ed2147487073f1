"""A lowered module becomes a build folder, whole or not at all: it appears under its name only when complete."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import tvm

from edgenext_tvm.board import Board
from edgenext_tvm.codegen import emit, manifest
from edgenext_tvm.codegen.c_source import C_TARGET
from edgenext_tvm.codegen.constants import StoredConstant, store_constants, total_bytes
from edgenext_tvm.codegen.lower_program import LoweredProgram, Schedule, lower_program
from edgenext_tvm.codegen.manifest import LayerEntry, Manifest, TuningEntry, file_entry
from edgenext_tvm.codegen.meta import GoldenVector, ModelMeta
from edgenext_tvm.codegen.plain_c import object_bytes
from edgenext_tvm.codegen.program import Program, read_program
from edgenext_tvm.codegen.toolchain import Toolchain
from edgenext_tvm.errors import UserError
from edgenext_tvm.paths import RUNTIME_C

# The schedules of the smallest vector unit: plain loops with small tiles, which any C compiler handles well.
PORTABLE_ISA = "c"


@dataclass(frozen=True)
class BuildResult:
    """Where everything is; `manifest` holds the numbers."""

    folder: Path
    manifest: Manifest
    static_library: Path
    shared_library: Path
    program: Path
    c_sources: Path


def default_schedule(isa: str, features: Sequence[str] = ()) -> Schedule:
    """The project's schedules for one instruction set and those of its features that kernels have special code for."""
    from edgenext_tvm.schedules.default import schedule_kernel

    return lambda func: schedule_kernel(func, isa, features)


def build_library(
    lowered_mod: tvm.IRModule,
    meta: ModelMeta,
    board: Board,
    out_dir: str | Path,
    golden: Sequence[GoldenVector] = (),
    *,
    schedule: Schedule | None = None,
    portable_schedule: Schedule | None = None,
    tuning: Callable[[], TuningEntry] | None = None,
    extra_files: Mapping[str, bytes] | None = None,
) -> BuildResult:
    """Builds `out_dir` with the libraries, the program and all C sources of `lowered_mod` for `board`.

    schedule            kernels of the library; default: the project's schedules for the board
    portable_schedule   kernels.c; default: the project's schedules without special instructions
    tuning              asked after lowering: which kernels `schedule` took from a tuning database
    extra_files         {relative path: content} added to the folder
    Replaces an earlier build at `out_dir`. Equal arguments give equal bytes. UserError if `out_dir` is something else,
    if the module cannot be compiled, or if the toolchain is missing or fails.
    """
    out = Path(os.path.abspath(out_dir))
    check_replaceable(out)
    toolchain = Toolchain.for_board(board)
    program = read_program(lowered_mod)
    prefix = f"enx_{meta.name}"
    schedule = schedule or default_schedule(board.isa, board.cpu.features)
    native = lower_program(program, prefix, board.tvm_target(), schedule)
    portable = lower_program(program, prefix, C_TARGET, portable_schedule or default_schedule(PORTABLE_ISA))
    with _whole_or_nothing(out) as folder:
        _write_sources(folder, portable, meta, golden)
        native_sources = emit.emit_model(native, meta)
        _write_includes(folder, native_sources, meta)
        objects = _compile(folder, native, native_sources, meta, board, toolchain)
        (folder / "lowered.json").write_text(tvm.ir.save_json(lowered_mod))
        for name, content in (extra_files or {}).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        written = _manifest(folder, program, native, meta, board, toolchain, len(golden), objects)
        written = written.model_copy(update={"tuning": tuning()}) if tuning else written
        (folder / manifest.FILE_NAME).write_text(written.to_json())
    name = meta.name
    return BuildResult(
        out, written, out / f"lib/lib{name}.a", out / f"lib/lib{name}.so", out / f"bin/{name}", out / "c"
    )


def check_replaceable(out: Path) -> None:
    """Raise UserError unless `out` is new, empty or an earlier build, in a folder that can be written."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; give the name of a folder to create")
    if out.is_dir() and any(out.iterdir()) and not (out / manifest.FILE_NAME).is_file():
        raise UserError(
            f"{out} exists and is not a build folder (no {manifest.FILE_NAME}); give another name, or remove it"
        )
    above = next(folder for folder in Path(os.path.abspath(out)).parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        kind = "a folder without write permission" if above.is_dir() else "a file"
        raise UserError(f"cannot create {out}: {above} is {kind}; give another folder with --out")


def _is_running(pid: str) -> bool:
    return pid.isdigit() and Path(f"/proc/{pid}").exists()


@contextlib.contextmanager
def _whole_or_nothing(out: Path) -> Iterator[Path]:
    """A new folder beside `out` that takes its place when the block ends well, and vanishes otherwise."""
    out.parent.mkdir(parents=True, exist_ok=True)
    for stale in out.parent.glob(f".{out.name}.*-*"):
        if not _is_running(stale.name.rpartition("-")[2]):
            shutil.rmtree(stale, ignore_errors=True)
    folder = out.parent / f".{out.name}.new-{os.getpid()}"
    replaced = out.parent / f".{out.name}.old-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
        if out.exists():
            out.rename(replaced)
        folder.rename(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def _write_all(folder: Path, files: Mapping[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in sorted(files):
        (folder / name).write_text(files[name])


def _runtime_files(part: str, pattern: str) -> list[Path]:
    return sorted((RUNTIME_C / part).glob(pattern))


def _write_sources(folder: Path, portable: LoweredProgram, meta: ModelMeta, golden: Sequence[GoldenVector]) -> None:
    c = folder / "c"
    files = emit.emit_model(portable, meta)
    files["kernels.c"] = emit.emit_kernels(portable, meta)
    files[f"{meta.name}_cli.c"] = emit.emit_cli(meta, bool(golden))
    if golden:
        num_classes = portable.program.values[portable.program.output].shape[-1]
        files[f"{meta.name}_golden.c"] = emit.emit_golden(golden, meta, num_classes)
    runtime = [f"runtime/src/{path.name}" for path in _runtime_files("src", "*.c")]
    cli = [f"runtime/cli/{path.name}" for path in _runtime_files("cli", "*.c")]
    files["CMakeLists.txt"] = emit.emit_cmake(meta, runtime, cli, bool(golden))
    _write_all(c, files)
    for part in ("include/enx", "src", "cli"):
        (c / "runtime" / part).mkdir(parents=True)
        for path in _runtime_files(part, "*.[ch]"):
            shutil.copyfile(path, c / "runtime" / part / path.name)


def _write_includes(folder: Path, native_sources: Mapping[str, str], meta: ModelMeta) -> None:
    include = folder / "include"
    (include / "enx").mkdir(parents=True)
    for path in _runtime_files("include/enx", "*.h"):
        shutil.copyfile(path, include / "enx" / path.name)
    (include / f"{meta.name}.h").write_text(native_sources[f"{meta.name}.h"])


def _compile(
    folder: Path,
    native: LoweredProgram,
    native_sources: Mapping[str, str],
    meta: ModelMeta,
    board: Board,
    toolchain: Toolchain,
) -> list[Path]:
    """Libraries and program; returns the library's objects, which stay in lib/objects."""
    work, c = folder / "work", folder / "c"
    _write_all(work, native_sources)
    objects_dir = folder / "lib" / "objects"
    objects_dir.mkdir(parents=True)
    kernels = objects_dir / "kernels.o"
    kernels.write_bytes(object_bytes(native.kernels, board.tvm_target()))
    include = [work, c / "runtime" / "include", c / "runtime" / "src"]
    sources = [work / "model.c", work / "weights.c", *sorted((c / "runtime" / "src").glob("*.c"))]
    objects = [*toolchain.compile(sources, objects_dir, include), kernels]
    toolchain.archive(objects, folder / "lib" / f"lib{meta.name}.a")
    toolchain.link_shared(objects, folder / "lib" / f"lib{meta.name}.so")
    cli = [*sorted(c.glob(f"{meta.name}_*.c")), *sorted((c / "runtime" / "cli").glob("*.c"))]
    cli_objects = toolchain.compile(cli, work / "cli", [work, c / "runtime" / "include", c / "runtime" / "cli"])
    toolchain.link_executable([*cli_objects, *objects], folder / "bin" / meta.name)
    shutil.rmtree(work)
    return objects


def _constants_sha256(stored: Sequence[StoredConstant]) -> str:
    digest = hashlib.sha256()
    for constant in stored:
        digest.update(b"".join(word.to_bytes(4, "little") for word in constant.words))
    return digest.hexdigest()


def _manifest(
    folder: Path,
    program: Program,
    native: LoweredProgram,
    meta: ModelMeta,
    board: Board,
    toolchain: Toolchain,
    num_golden: int,
    objects: Sequence[Path],
) -> Manifest:
    size = toolchain.size(folder / "lib" / f"lib{meta.name}.a")
    stored = store_constants(native, f"enx_{meta.name}").stored
    layers = emit.step_descriptions(native, meta)
    model_input = program.values[program.input]
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    entries = {path.relative_to(folder).as_posix(): file_entry(path) for path in paths}
    object_names = {path.relative_to(folder).as_posix() for path in objects}
    return Manifest(
        project_version=manifest.project_version(),
        versions=manifest.package_versions(),
        name=meta.name,
        model=meta.model,
        precision=meta.precision,
        board=board.name,
        isa=board.isa,
        target=board.llvm.model_dump(mode="json"),
        input_shape=model_input.shape,
        input_dtype=model_input.dtype,
        num_classes=program.values[program.output].shape[-1],
        preprocessing=meta.preprocessing.model_dump(mode="json") if meta.preprocessing else None,
        recipe=meta.recipe,
        weights_sha256=meta.weights_sha256,
        constants_sha256=_constants_sha256(stored),
        arena_bytes=native.plan.arena_bytes,
        arena_lower_bound_bytes=native.plan.lower_bound_bytes,
        flash_bytes=size.flash_bytes,
        text_bytes=size.text,
        rodata_bytes=size.rodata,
        constant_bytes=total_bytes(stored),
        macs=sum(step.step.macs for step in native.steps),
        kernel_calls=len(native.steps),
        distinct_kernels=len(native.kernels),
        golden_vectors=num_golden,
        layers=tuple(
            LayerEntry(
                layer=layer["layer"],
                kernel=layer["kind"],
                function=layer["function"],
                detail=layer["detail"],
                macs=layer["macs"],
                extent=layer["extent"],
            )
            for layer in layers
        ),
        objects={name: entry for name, entry in entries.items() if name in object_names},
        files={name: entry for name, entry in entries.items() if name not in object_names},
    )
