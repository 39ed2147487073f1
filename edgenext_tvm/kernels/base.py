"""The common shape of every integer kernel: a frozen description that builds TIR and carries its own NumPy twin."""

from __future__ import annotations

import dataclasses
import json
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from tvm import tirx

from ..errors import UserError
from .wide import ACTIVATION_DTYPES

TensorType = tuple[tuple[int, ...], str]
"""Static shape and dtype name of one argument."""

KERNEL_ATTR = "enx.kernel"
NUM_WORKSPACES_ATTR = "enx.num_workspaces"
INPLACE_ATTR = "enx.inplace"

EPILOGUES = ("none", "lut", "residual")

_KINDS: dict[str, type[Kernel]] = {}


@dataclasses.dataclass(frozen=True)
class Kernel(ABC):
    """Static shapes of one kernel; equal descriptions give equal code, since all quantization values are arguments.

    A subclass names its `kind`, lists `input_types`, `output_types` and `workspace_types`, and gives the same
    function twice: `_build` as TIR and `reference` as the naive NumPy specification. Both agree bit for bit.
    The order of a PrimFunc's arguments is inputs, outputs, workspaces.
    """

    kind: ClassVar[str] = ""
    added_fields: ClassVar[tuple[str, ...]] = ()
    """Fields left out of the JSON while at their default, so that a description keeps the JSON that it had before."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.kind:
            _KINDS[cls.kind] = cls

    @abstractmethod
    def input_types(self) -> list[TensorType]:
        """Shape and dtype of each input, in argument order."""

    @abstractmethod
    def output_types(self) -> list[TensorType]:
        """Shape and dtype of each output followed by each workspace, in argument order."""

    @abstractmethod
    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """Return output 0 for the inputs, computed by the naive NumPy definition."""

    @abstractmethod
    def _build(self) -> tirx.PrimFunc:
        """Return the unscheduled TIR, made of schedulable blocks."""

    @property
    @abstractmethod
    def macs(self) -> int:
        """Multiply-accumulates of one call."""

    @property
    def num_workspaces(self) -> int:
        """How many of the last outputs are scratch, undefined after the call."""
        return 0

    @property
    def inplace_input(self) -> int:
        """Index of the input that shares memory with output 0, or -1."""
        return -1

    @property
    def is_wide(self) -> bool:
        """Whether it reads or writes a wide tensor (int16, see `wide`)."""
        return any(dtype == "int16" for _, dtype in self.input_types() + self.output_types())

    @property
    def multiplies_wide(self) -> bool:
        """Whether what it multiplies or sums up is wide, and not only what its epilogue reads or writes."""
        return self.input_types()[0][1] == "int16"

    @property
    def task_hint(self) -> str:
        """A short line for reports: the kind and its shapes."""
        return self.kind + " " + " ".join(f"{key}={value}" for key, value in self._described().items())

    def prim_func(self, name: str) -> tirx.PrimFunc:
        """Return the unscheduled PrimFunc `name` with the attributes that lowering and code generation read."""
        func = self._build().with_attr("global_symbol", name)
        func = func.with_attr(KERNEL_ATTR, self.to_json())
        func = func.with_attr(NUM_WORKSPACES_ATTR, self.num_workspaces)
        func = func.with_attr(INPLACE_ATTR, self.inplace_input)
        if self.inplace_input < 0:
            func = func.with_attr("tirx.noalias", True)
        return func

    def to_json(self) -> str:
        """Return a canonical one-line JSON of kind and fields; `Kernel.from_json` reverses it."""
        return json.dumps({"kind": self.kind, **self._described()}, sort_keys=True)

    def _described(self) -> dict[str, Any]:
        defaults = {field.name: field.default for field in dataclasses.fields(self) if field.name in self.added_fields}
        values = dataclasses.asdict(self)
        return {name: value for name, value in values.items() if name not in defaults or value != defaults[name]}

    @staticmethod
    def from_json(text: str) -> Kernel:
        """Return the kernel that `to_json` described; UserError if the kind or a field is unknown."""
        fields = json.loads(text)
        kind = fields.pop("kind", None)
        if kind not in _KINDS:
            raise UserError(f"unknown kernel kind {kind!r}; known kinds: {', '.join(sorted(_KINDS))}")
        known = {field.name for field in dataclasses.fields(_KINDS[kind])}
        if unknown := sorted(set(fields) - known):
            raise UserError(
                f"kernel {kind!r} has no field {', '.join(unknown)}; its fields are {', '.join(sorted(known))}"
            )
        return _KINDS[kind](**fields)


def kernel_of(func: tirx.PrimFunc) -> Kernel | None:
    """Return the kernel a PrimFunc was built from, or None for a function that carries no description."""
    text = (func.attrs or {}).get(KERNEL_ATTR)
    return None if text is None else Kernel.from_json(str(text))


def check_at_least_one(kernel: Kernel, *fields: str) -> None:
    """Raise UserError unless every named field is a positive integer."""
    for field in fields:
        value = getattr(kernel, field)
        if value < 1:
            raise UserError(f"{kernel.kind}: {field} is {value}, must be at least 1")


def check_choice(kernel: Kernel, field: str, allowed: tuple[str, ...]) -> None:
    """Raise UserError unless the named field is one of `allowed`."""
    value = getattr(kernel, field)
    if value not in allowed:
        raise UserError(f"{kernel.kind}: {field} is {value!r}, must be one of {', '.join(allowed)}")


def check_activation_dtypes(kernel: Kernel, *fields: str) -> None:
    """Raise UserError unless every named field is a dtype that activations may have."""
    for field in fields:
        check_choice(kernel, field, ACTIVATION_DTYPES)


def check_epilogue_dtypes(kernel: Any) -> None:
    """Raise UserError unless the epilogue can store `out_dtype` and reads a residual where `r_dtype` is int16."""
    if kernel.epilogue == "lut":
        check_choice(kernel, "out_dtype", ("int8",))
    if kernel.epilogue != "residual":
        check_choice(kernel, "r_dtype", ("int8",))


def check_channel_window(kernel: Kernel, offset_field: str, width: int, total_field: str) -> None:
    """Raise UserError unless channels [offset, offset + width) lie inside a tensor of `total_field` channels."""
    offset, total = getattr(kernel, offset_field), getattr(kernel, total_field)
    if offset < 0 or offset + width > total:
        raise UserError(
            f"{kernel.kind}: channels [{offset}, {offset + width}) ({offset_field}) do not fit in {total_field}={total}"
        )
