"""Puts the folders that live beside the package into the wheel, under edgenext_tvm/_data.

An editable install needs none of this: edgenext_tvm.paths finds the checkout's own folders.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

DATA_FOLDERS = ("runtime_c", "targets", "tuning_logs", "examples")


class CustomBuildHook(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel" or version == "editable":
            return
        for folder in DATA_FOLDERS:
            source = Path(self.root) / folder
            if source.is_dir():
                build_data["force_include"][str(source)] = f"edgenext_tvm/_data/{folder}"
