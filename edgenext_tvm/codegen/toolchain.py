"""A board's C compiler, archiver and linker behind one value; equal inputs give equal bytes in any folder.

Three kinds: `system` calls the compiler of this machine, `gnu` a cross compiler, `zig` the C compiler
of the ziglang package, which brings musl and glibc for every ARM target and needs nothing installed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgenext_tvm.board import Board
from edgenext_tvm.codegen.elf_size import SectionBytes, read_size
from edgenext_tvm.errors import UserError
from edgenext_tvm.paths import cache_dir

COMMON_CFLAGS = (
    "-O2",
    "-std=c99",
    "-fPIC",
    "-ffp-contract=off",  # a fused multiply-add would round once where the numeric definition rounds twice
    "-ffunction-sections",
    "-fdata-sections",
)
# -s: zig's libc carries paths of its cache in debug sections
COMMON_LDFLAGS = ("-O2", "-Wl,--gc-sections", "-Wl,--build-id=none", "-s")
LIBRARIES = ("-lm", "-lpthread")
_ERROR_LINES = 12


@dataclass(frozen=True)
class Toolchain:
    """cc compiles, two linkers, ar archives: each a command with its target's flags."""

    kind: str
    cc: tuple[str, ...]
    static_linker: tuple[str, ...]
    shared_linker: tuple[str, ...]
    ar: tuple[str, ...]
    cflags: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict, hash=False)
    advice: str = ""

    @classmethod
    def for_board(cls, board: Board) -> Toolchain:
        """The toolchain that the board names. Raises UserError when the tool is not installed."""
        spec = board.toolchain
        if spec.kind == "zig":
            return cls._zig(board)
        assert spec.cc is not None
        cc = shutil.which(spec.cc)
        advice = (
            f"install it (Debian: {_debian_package(spec.cc)}), or set another toolchain in {board.file}: "
            'kind = "zig" comes with this package'
        )
        if cc is None:
            raise UserError(f"C compiler '{spec.cc}' of board '{board.name}' not found; {advice}")
        ar = _archiver_beside(cc)
        if ar is None:
            raise UserError(f"archiver beside '{cc}' of board '{board.name}' not found; {advice}")
        cpu = (f"-mcpu={board.llvm.mcpu}",) if spec.kind == "gnu" else ()
        command = (cc, *cpu)
        return cls(spec.kind, command, command, command, (ar,), spec.cflags, advice=advice)

    @classmethod
    def _zig(cls, board: Board) -> Toolchain:
        spec = board.toolchain
        try:
            import ziglang  # noqa: F401
        except ImportError:
            raise UserError(
                f"board '{board.name}' compiles with zig, but the Python package ziglang is not installed; "
                "install it: pip install ziglang==0.17.1"
            ) from None
        zig = (sys.executable, "-m", "ziglang")
        cpu = (f"-mcpu={board.llvm.mcpu.replace('-', '_')}",)
        # zig builds a libc per CPU named at the link, a minute each: AArch64 boards share the generic one
        link_cpu = () if board.isa == "aarch64" else cpu
        # zig locks its cache itself, so concurrent builds may share it
        cache = str(cache_dir() / "zig")
        return cls(
            "zig",
            (*zig, "cc", "-target", str(spec.zig_target), *cpu),
            (*zig, "cc", "-target", str(spec.zig_target), *link_cpu),
            (*zig, "cc", "-target", str(spec.zig_shared_target or spec.zig_target), *link_cpu),
            (*zig, "ar"),
            spec.cflags,
            environment={"ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache},
            advice=f"see toolchain in {board.file}",
        )

    def compile(
        self,
        sources: Sequence[Path],
        out_dir: Path,
        include_dirs: Sequence[Path] = (),
        defines: Sequence[str] = (),
        cflags: Sequence[str] = (),
    ) -> list[Path]:
        """One object per C source, in the order given. Raises UserError with the first error lines."""
        out_dir.mkdir(parents=True, exist_ok=True)
        objects: list[Path] = []
        for source in sources:
            name = source.stem
            while out_dir / f"{name}.o" in objects:
                name += "_"
            target = out_dir / f"{name}.o"
            folders = dict.fromkeys(str(folder.resolve()) for folder in (source.parent, *include_dirs))
            self._call(
                [
                    *self.cc,
                    *COMMON_CFLAGS,
                    *(f"-ffile-prefix-map={folder}/=" for folder in folders),
                    *(f"-I{folder}" for folder in include_dirs),
                    *(f"-D{define}" for define in defines),
                    *self.cflags,
                    *cflags,
                    "-c",
                    str(source.resolve()),
                    "-o",
                    str(target),
                ]
            )
            objects.append(target)
        return objects

    def archive(self, objects: Sequence[Path], out: Path) -> Path:
        """A static library with the objects in the order given, without dates, users or folders."""
        out.parent.mkdir(parents=True, exist_ok=True)
        out.unlink(missing_ok=True)
        # q appends: r would replace an earlier object of the same file name
        self._call([*self.ar, "qcsD", str(out), *map(str, objects)])
        return out

    def link_shared(self, objects: Sequence[Path], out: Path) -> Path:
        """A shared library whose soname is its file name. The objects must be position-independent."""
        out.parent.mkdir(parents=True, exist_ok=True)
        self._call(
            [
                *self.shared_linker,
                "-shared",
                f"-Wl,-soname,{out.name}",
                *COMMON_LDFLAGS,
                *map(str, objects),
                *LIBRARIES,
                "-o",
                str(out),
            ]
        )
        return out

    def link_executable(self, objects: Sequence[Path], out: Path) -> Path:
        """A static program: it needs nothing of the board's file system."""
        out.parent.mkdir(parents=True, exist_ok=True)
        self._call([*self.static_linker, "-static", *COMMON_LDFLAGS, *map(str, objects), *LIBRARIES, "-o", str(out)])
        return out

    def size(self, path: Path) -> SectionBytes:
        """Bytes of text, rodata, data and bss of an object, archive, library or program."""
        return read_size(path)

    def _call(self, command: list[str]) -> None:
        try:
            done = subprocess.run(
                command,
                env={**os.environ, **self.environment},
                capture_output=True,
                text=True,
                errors="replace",
                stdin=subprocess.DEVNULL,
                check=False,
            )
        except OSError as error:
            raise UserError(f"cannot start '{command[0]}': {error.strerror}; {self.advice}") from None
        if done.returncode != 0:
            lines = (done.stderr or done.stdout).strip().splitlines()
            # compilers mention what includes what first: begin at the first line that names an error
            first = next((i for i, line in enumerate(lines) if re.search("error|undefined", line, re.IGNORECASE)), 0)
            shown = "\n".join(lines[first : first + _ERROR_LINES]) or "(no output)"
            raise UserError(
                f"command failed with status {done.returncode}:\n  {' '.join(command)}\n{shown}\n{self.advice}"
            )


def _archiver_beside(cc: str) -> str | None:
    """aarch64-linux-gnu-gcc -> aarch64-linux-gnu-ar; cc, gcc-12 or clang -> ar."""
    path = Path(cc)
    prefix = path.name[: path.name.rfind("-gcc") + 1] if "-gcc" in path.name else ""
    beside = path.parent / f"{prefix}ar"
    return str(beside) if beside.is_file() else shutil.which(f"{prefix}ar")


def _debian_package(cc: str) -> str:
    name = Path(cc).name
    return f"gcc-{name[: -len('-gcc')]}" if name.endswith("-gcc") else "gcc libc6-dev"
