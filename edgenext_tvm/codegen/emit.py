"""C sources of one model from a lowered program: readable, complete, and byte-identical for equal inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from edgenext_tvm.codegen.c_source import C_TYPES, float_literal, kernel_definitions, prototype, used_bit_casts
from edgenext_tvm.codegen.constants import ConstantTable, store_constants, total_bytes
from edgenext_tvm.codegen.lower_program import HoistedRef, LoweredProgram, LoweredStep
from edgenext_tvm.codegen.meta import GoldenVector, ModelMeta, input_table_float, input_table_int8
from edgenext_tvm.codegen.plain_c import ALIGN_BYTES
from edgenext_tvm.codegen.program import ConstantRef, Value, ValueRef
from edgenext_tvm.errors import UserError

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Argument:
    """One argument of a step's call: the C expression and what a reader should know about it."""

    expression: str
    comment: str


def _shape(shape: Sequence[int]) -> str:
    return "x".join(str(dim) for dim in shape) or "scalar"


def c_string(text: str) -> str:
    """A C string literal that reads back as the UTF-8 bytes of `text`."""
    out = []
    for byte in text.encode():
        char = chr(byte)
        # ?? would start a trigraph; octal escapes of three digits cannot run into the next character
        out.append(char if 32 <= byte < 127 and char not in '"\\?' else f"\\{byte:03o}")
    return f'"{"".join(out)}"'


def _comment(text: str) -> str:
    return text.replace("*/", "* /").replace("/*", "/ *").replace("\n", " ")


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters.update(c_string=c_string, comment=_comment, f32=lambda v: float_literal(float(v), "float32"))
    return environment


class _Emitter:
    def __init__(self, lowered: LoweredProgram, meta: ModelMeta) -> None:
        self.lowered = lowered
        self.meta = meta
        self.prefix = f"enx_{meta.name}"
        self.constants: ConstantTable = store_constants(lowered, self.prefix)

    def argument(self, index: int, step: LoweredStep, position: int) -> Argument:
        pointer = step.kernel.pointers[position]
        operand = step.operands[position]
        const = "const " if pointer.is_const else ""
        type_name = C_TYPES[pointer.dtype]
        if isinstance(operand, ConstantRef):
            stored = self.constants.stored[self.constants.place[operand.index]]
            array = self.lowered.constants[operand.index]
            return Argument(
                f"{stored.name}.{array.dtype}",
                f"{pointer.name}: {array.dtype} {_shape(array.shape)} constant",
            )
        if isinstance(operand, HoistedRef):
            offset = self.lowered.plan.hoisted_offsets[index][operand.index]
            what = f"scratch, {step.kernel.hoisted_bytes[operand.index]} bytes"
        else:
            offset = self.lowered.plan.value_offsets[operand.id]
            value = self.lowered.program.values[operand.id]
            what = f"{value.dtype} {_shape(value.shape)}"
        return Argument(f"AT({const}{type_name}, {offset}u)", f"{pointer.name}: {what} at arena + {offset}")

    def step(self, index: int, step: LoweredStep) -> dict[str, Any]:
        values = self.lowered.program.values
        reads = " + ".join(_describe(values[r.id]) for r in step.step.inputs if isinstance(r, ValueRef))
        results = " + ".join(_describe(values[i]) for i in step.step.results)
        return {
            "layer": step.step.layer,
            "kind": step.step.kind,
            "function": step.kernel.name,
            "extent": step.kernel.extent,
            "macs": step.step.macs,
            "detail": f"{reads} -> {results}",
            "arguments": [self.argument(index, step, p) for p in range(len(step.operands))],
        }

    def tensor(self, value: Value, scale: float, zero_point: int) -> dict[str, Any]:
        if value.dtype not in ("int8", "float32") or not 1 <= len(value.shape) <= 4:
            raise UserError(
                f"'{value.name}' is {_describe(value)}; a model's input and output are int8 or "
                "float32 with 1 to 4 dimensions"
            )
        return {
            "enum": {"int8": "ENX_DTYPE_INT8", "float32": "ENX_DTYPE_FLOAT32"}[value.dtype],
            "dtype": value.dtype,
            "shape": list(value.shape),
            "shape4": [*value.shape, *[1] * (4 - len(value.shape))],
            "scale": scale,
            "zero_point": zero_point,
            "offset": self.lowered.plan.value_offsets[value.id],
            "bytes": value.size_bytes,
        }

    def context(self) -> dict[str, Any]:
        program, meta = self.lowered.program, self.meta
        pre = meta.preprocessing
        is_int8 = program.values[program.input].dtype == "int8"
        scale = meta.input_scale if is_int8 else 1.0
        zero_point = meta.input_zero_point if is_int8 else 0
        output = program.values[program.output]
        num_classes = output.shape[-1]
        if pre is not None and pre.class_names is not None and len(pre.class_names) != num_classes:
            raise UserError(
                f"{len(pre.class_names)} class names for a model with {num_classes} classes; give one "
                "name per class or none"
            )
        table = None
        if pre is not None:
            table = input_table_int8(pre, scale, zero_point) if is_int8 else input_table_float(pre)
        quantized_output = output.dtype == "int8"
        return {
            "meta": meta,
            "name": meta.name,
            "macro": meta.name.upper(),
            "prefix": self.prefix,
            "align": ALIGN_BYTES,
            "arena_bytes": self.lowered.plan.arena_bytes,
            "constant_bytes": total_bytes(self.constants.stored),
            "constants": self.constants.stored,
            "steps": [self.step(i, s) for i, s in enumerate(self.lowered.steps)],
            "kernels": self.lowered.kernels,
            "input": self.tensor(program.values[program.input], scale, zero_point),
            "output": self.tensor(
                output,
                meta.output_scale if quantized_output else 1.0,
                meta.output_zero_point if quantized_output else 0,
            ),
            "num_classes": num_classes,
            "macs": sum(s.step.macs for s in self.lowered.steps),
            "pre": pre,
            "table_is_int8": is_int8,
            "table": table,
            "prototype": prototype,
        }


def _describe(value: Value) -> str:
    return f"{value.dtype} {_shape(value.shape)}"


def emit_model(lowered: LoweredProgram, meta: ModelMeta) -> dict[str, str]:
    """{file name: text} of NAME.h, NAME_kernels.h, NAME_weights.h, model.c and weights.c for `lowered`."""
    environment = _environment()
    context = _Emitter(lowered, meta).context()
    files = {
        f"{meta.name}.h": "model.h.j2",
        f"{meta.name}_kernels.h": "kernels.h.j2",
        f"{meta.name}_weights.h": "weights.h.j2",
        "model.c": "model.c.j2",
        "weights.c": "weights.c.j2",
    }
    return {name: environment.get_template(template).render(context) for name, template in files.items()}


def step_descriptions(lowered: LoweredProgram, meta: ModelMeta) -> list[dict[str, Any]]:
    """Per step: layer, kind, function, extent, macs, detail and arguments, as model.c states them."""
    emitter = _Emitter(lowered, meta)
    return [emitter.step(index, step) for index, step in enumerate(lowered.steps)]


def emit_kernels(lowered: LoweredProgram, meta: ModelMeta) -> str:
    """kernels.c; `lowered` must have been lowered for C_TARGET."""
    first_use: dict[str, LoweredStep] = {}
    for step in lowered.steps:
        first_use.setdefault(step.kernel.name, step)
    definitions = kernel_definitions(lowered.kernels)
    kernels = [
        {
            "kind": first_use[kernel.name].step.kind,
            "layers": [s.step.layer for s in lowered.steps if s.kernel.name == kernel.name],
            "text": definitions[kernel.name],
        }
        for kernel in lowered.kernels
    ]
    bit_casts = used_bit_casts(definitions.values())
    context = {"name": meta.name, "kernels": kernels, "bit_casts": bit_casts}
    return _environment().get_template("kernels.c.j2").render(context)


def emit_golden(vectors: Sequence[GoldenVector], meta: ModelMeta, num_classes: int) -> str:
    """NAME_golden.c: `enx_golden_NAME` with the expected logits of each vector; at least one vector."""
    assert vectors
    rows = []
    for vector in vectors:
        logits = None
        if vector.expected_logits is not None:
            array = np.asarray(vector.expected_logits, np.float32).reshape(-1)
            if array.size != num_classes:
                raise UserError(f"a golden vector has {array.size} logits; the model has {num_classes} classes")
            literals = [float_literal(float(v), "float32") for v in array]
            logits = [", ".join(literals[i : i + 8]) for i in range(0, len(literals), 8)]
        rows.append({"vector": vector, "logits": logits})
    return _environment().get_template("golden.c.j2").render(name=meta.name, num_classes=num_classes, rows=rows)


def emit_cli(meta: ModelMeta, has_golden: bool) -> str:
    """NAME_cli.c: tells the command-line program which model and golden vectors it serves."""
    return _environment().get_template("cli.c.j2").render(name=meta.name, has_golden=has_golden)


def emit_cmake(meta: ModelMeta, runtime_sources: Sequence[str], cli_sources: Sequence[str], has_golden: bool) -> str:
    """CMakeLists.txt of the folder with all C sources."""
    return (
        _environment()
        .get_template("CMakeLists.txt.j2")
        .render(
            name=meta.name,
            runtime_sources=sorted(runtime_sources),
            cli_sources=sorted(cli_sources),
            has_golden=has_golden,
        )
    )
