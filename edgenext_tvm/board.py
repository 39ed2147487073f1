"""A board, frozen and validated: everything that any stage may know about the machine the library is for.

A board is a folder with a board.toml. Users add one by copying a folder; `load_board` takes the folder,
the file or a name. Names are looked up in the folders of $EDGENEXT_TVM_TARGETS (separated like $PATH),
then among the bundled ones.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from edgenext_tvm import native
from edgenext_tvm.errors import UserError
from edgenext_tvm.paths import TARGETS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from tvm.target import Target

TARGETS_ENV = "EDGENEXT_TVM_TARGETS"
Isa = Literal["x86_64", "aarch64", "armv7"]
# what [cpu] features may name, per isa: the instructions that kernels have special code for
FEATURES: dict[str, tuple[str, ...]] = {
    "x86_64": tuple(native.X86_FLAGS),
    "aarch64": tuple(native.AARCH64_FLAGS),
    "armv7": ("neon", "vfp4"),
}
TRIPLE_PREFIXES: dict[str, tuple[str, ...]] = {
    "x86_64": ("x86_64-",),
    "aarch64": ("aarch64-",),
    "armv7": ("armv7a-", "armv7l-", "armv8l-", "arm-"),
}

_Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]
_Bytes = Annotated[int, Field(gt=0)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class Cpu(_Frozen):
    """core: marketing name; clock_hz: 0 when unknown; caches: of one core, in bytes.

    int8_macs_per_instruction, bytes_per_instruction: at most, for the least number of instructions of a layer; None
    where nobody counts.
    """

    core: str
    isa: Isa
    features: tuple[str, ...]
    cores: Annotated[int, Field(ge=1, le=256)]
    clock_hz: Annotated[int, Field(ge=0)]
    l1d_bytes: _Bytes
    l2_bytes: _Bytes
    int8_macs_per_instruction: Annotated[float, Field(gt=0)] | None = None
    bytes_per_instruction: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _features_belong_to_the_isa(self) -> Cpu:
        allowed = FEATURES[self.isa]
        for feature in self.features:
            if feature not in allowed:
                raise ValueError(f"features: '{feature}' is not a feature of {self.isa}; allowed: {', '.join(allowed)}")
        return self


class Memory(_Frozen):
    ram_bytes: _Bytes


class Llvm(_Frozen):
    mtriple: str
    mcpu: str
    mattr: tuple[str, ...] = ()

    @field_validator("mattr")
    @classmethod
    def _signed(cls, mattr: tuple[str, ...]) -> tuple[str, ...]:
        for attribute in mattr:
            if attribute[:1] not in "+-" or len(attribute) < 2:
                raise ValueError(f"'{attribute}' must start with + or -, for example '+{attribute}'")
        return mattr


class ToolchainSpec(_Frozen):
    """kind system and gnu call `cc`; kind zig calls the ziglang package's C compiler for `zig_target`."""

    kind: Literal["system", "zig", "gnu"]
    cc: str | None = None
    zig_target: str | None = None
    zig_shared_target: str | None = None
    cflags: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _complete(self) -> ToolchainSpec:
        if self.kind == "zig":
            if not self.zig_target:
                raise ValueError('zig_target: missing, kind "zig" needs it, for example "aarch64-linux-musl"')
            if self.cc:
                raise ValueError('cc: not allowed with kind "zig"; remove it, or set kind to "system" or "gnu"')
        else:
            if not self.cc:
                raise ValueError(f'cc: missing, kind "{self.kind}" needs it, for example "aarch64-linux-gnu-gcc"')
            if self.zig_target or self.zig_shared_target:
                raise ValueError(f'zig_target: not allowed with kind "{self.kind}"; remove it, or set kind to "zig"')
        return self


class Run(_Frozen):
    """How binaries of this board are run from here. runner ssh needs the host at the command line."""

    runner: Literal["host", "qemu", "ssh"]
    qemu: str | None = None
    qemu_cpu: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> Run:
        if self.runner == "qemu" and not (self.qemu and self.qemu_cpu):
            raise ValueError(
                'qemu, qemu_cpu: runner "qemu" needs both, for example qemu = "qemu-aarch64", qemu_cpu = "cortex-a72"'
            )
        return self


class Board(_Frozen):
    name: _Name
    description: str
    cpu: Cpu
    memory: Memory
    llvm: Llvm
    toolchain: ToolchainSpec
    run: Run
    _file: Path = PrivateAttr(default=Path("board.toml"))

    @model_validator(mode="after")
    def _triple_belongs_to_the_isa(self) -> Board:
        # LLVM ends the process when it is asked about a triple that it does not know
        allowed = TRIPLE_PREFIXES[self.cpu.isa]
        if not self.llvm.mtriple.startswith(allowed):
            raise ValueError(
                f"llvm.mtriple: '{self.llvm.mtriple}' is no triple of {self.cpu.isa}; it must begin with "
                f"{' or '.join(allowed)}"
            )
        return self

    @property
    def file(self) -> Path:
        """The board.toml this came from."""
        return self._file

    @property
    def isa(self) -> str:
        return self.cpu.isa

    @property
    def is_host(self) -> bool:
        """True when its binaries run on this machine as they are."""
        return self.run.runner == "host"

    def tvm_target(self) -> Target:
        """TVM's LLVM target. Raises UserError for a CPU or feature unknown to LLVM, which would fall back silently."""
        from tvm.target import Target, codegen

        if not codegen.llvm_is_valid_cpu(self.llvm.mcpu, self.llvm.mtriple):
            known = ", ".join(
                str(cpu)
                for cpu in codegen.llvm_get_cpu_archlist(Target({"kind": "llvm", "mtriple": self.llvm.mtriple}))
            )
            raise UserError(
                f"{self.file}: llvm.mcpu: LLVM knows no CPU '{self.llvm.mcpu}' for {self.llvm.mtriple}; "
                f"allowed: {known}"
            )
        target = Target(
            {
                "kind": "llvm",
                "mtriple": self.llvm.mtriple,
                "mcpu": self.llvm.mcpu,
                "mattr": list(self.llvm.mattr),
                "num-cores": self.cpu.cores,
            }
        )
        for name in (attribute[1:] for attribute in self.llvm.mattr if attribute.startswith("+")):
            if not codegen.target_has_features([name], target):
                raise UserError(
                    f"{self.file}: llvm.mattr: LLVM knows no feature '+{name}' of {self.llvm.mcpu}; features are "
                    "spelled as in clang's -target-feature, for example +neon or +dotprod"
                )
        for name in self.cpu.features:
            if not codegen.target_has_features([name], target):
                raise UserError(
                    f"{self.file}: cpu.features: '{name}' is not enabled by llvm.mcpu = '{self.llvm.mcpu}' and "
                    f'llvm.mattr; add "+{name}" to llvm.mattr, or remove the feature'
                )
        return target


def target_folders() -> list[Path]:
    """Folders that hold boards, in the order of the search: the user's, then the bundled one."""
    own = [Path(folder).expanduser() for folder in os.environ.get(TARGETS_ENV, "").split(os.pathsep) if folder]
    return [*own, TARGETS]


def board_files() -> dict[str, Path]:
    """Name -> board.toml of every board that can be named, sorted; of equal names the first found wins."""
    found: dict[str, Path] = {}
    for folder in target_folders():
        for file in sorted(folder.glob("*/board.toml")):
            found.setdefault(file.parent.name, file)
    return dict(sorted(found.items()))


def load_board(name_or_path: str | Path) -> Board:
    """The board of that name, folder or file. Raises UserError naming file, field and allowed values."""
    path = Path(name_or_path).expanduser()
    looks_like_path = os.sep in str(name_or_path) or path.suffix == ".toml" or str(name_or_path) in (".", "..")
    if looks_like_path:
        file = path / "board.toml" if path.is_dir() else path
        if not file.is_file():
            raise UserError(
                f"no board at '{name_or_path}': {file} does not exist; give a folder with a board.toml, or "
                f"one of: {', '.join(board_files())}"
            )
        return _read(file.resolve())
    known = board_files()
    if str(name_or_path) not in known:
        raise UserError(
            f"unknown board '{name_or_path}'; known boards: {', '.join(known)}. To add one, copy a folder of "
            f"{TARGETS} and give its path, or put the folder above it into ${TARGETS_ENV}"
        )
    return _read(known[str(name_or_path)].resolve())


def _read(file: Path) -> Board:
    try:
        raw = tomllib.loads(file.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{file}: not valid TOML: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read: {error}") from None
    _resolve_native(raw)
    try:
        board = Board.model_validate(raw)
    except ValidationError as error:
        raise UserError("\n".join(f"{file}: {_explain(dict(problem))}" for problem in error.errors())) from None
    if board.name != file.parent.name:
        raise UserError(
            f"{file}: name: '{board.name}' differs from its folder '{file.parent.name}'; "
            f'set name = "{file.parent.name}" or rename the folder'
        )
    board._file = file
    return board


def _resolve_native(raw: dict[str, Any]) -> None:
    """Replaces each detectable field that says "native" by what this machine has."""
    for (section, field), detect in native.DETECT.items():
        values = raw.get(section)
        if isinstance(values, dict) and values.get(field) in ("native", ["native"]):
            values[field] = detect()


def _explain(problem: dict[str, Any]) -> str:
    """One pydantic problem as `field: what was given; what is allowed`."""
    where = ".".join(str(part) for part in problem["loc"])
    kind, given = problem["type"], problem.get("input")
    if kind == "extra_forbidden":
        return f"{where}: unknown field; allowed: {', '.join(_fields_beside(problem['loc']))}"
    if kind == "missing":
        return f"{where}: missing"
    if kind == "literal_error":
        return f"{where}: '{given}' is not allowed; allowed: {problem['ctx']['expected'].replace(' or ', ', ')}"
    if kind == "value_error":
        message = str(problem["ctx"]["error"])
        # a check of a whole section names the field itself
        if not where:
            return message
        return f"{where}.{message}" if isinstance(given, dict) else f"{where}: {message}"
    message = problem["msg"]
    return f"{where}: {given!r} is not allowed: {message[:1].lower()}{message[1:]}"


def _fields_beside(location: tuple[str | int, ...]) -> list[str]:
    model: type[BaseModel] = Board
    for part in location[:-1]:
        model = model.model_fields[str(part)].annotation  # type: ignore[assignment]
    return list(model.model_fields)
