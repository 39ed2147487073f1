"""Reads a build folder: its manifest, the board it was built for, and the files that verification needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from edgenext_tvm.board import Board
from edgenext_tvm.codegen.manifest import Manifest, load_manifest
from edgenext_tvm.errors import UserError

BOARD_FILE = "board.json"
WEIGHTS_FILE = "model.safetensors"
PROGRAM_FILE = "program.pt2"
RECIPE_FILE = "recipe.json"
ONNX_FILE = "program.onnx"
BUDGET_FILE = "budget.json"
LOWERED_FILE = "lowered.json"


@dataclass(frozen=True)
class BuildFolder:
    """One output of `compile`. board: as it was when compiled, so "native" stays that machine."""

    path: Path
    manifest: Manifest
    board: Board

    @property
    def program(self) -> Path:
        return self.path / "bin" / self.manifest.name

    def file(self, name: str) -> Path | None:
        """The file of that name, or None where this build has none."""
        path = self.path / name
        return path if path.is_file() else None


def open_build(path: str | Path) -> BuildFolder:
    """The build at `path`. Raises UserError when it is no build folder, is damaged, or its program is gone."""
    folder = Path(path)
    if not folder.is_dir():
        raise UserError(f"no build folder at {folder}; give a folder written by `edgenext-tvm compile`")
    manifest = load_manifest(folder)
    try:
        board = Board.model_validate_json((folder / BOARD_FILE).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        first = str(error).splitlines()[0]
        raise UserError(f"{folder / BOARD_FILE} is missing or damaged ({first}); compile the model again") from None
    build = BuildFolder(folder, manifest, board)
    if not build.program.is_file():
        raise UserError(f"{build.program} is missing; compile the model again")
    return build
