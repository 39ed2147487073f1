"""Lowered kernels as portable C99 that means exactly what the LLVM object means.

TVM's C printer is lossy in two places: float constants lose digits (12582912.0f becomes 1.258291e+07f), and bit
casts go through incompatible pointers, which C forbids. Both are rewritten in TIR before printing.
"""

from __future__ import annotations

import dataclasses
import re
import struct
from collections.abc import Iterable, Sequence

import numpy as np
import tvm
from tvm import tirx
from tvm.target import Target
from tvm_ffi import structural_map, structural_walk

from edgenext_tvm.codegen.plain_c import PlainKernel, Pointer
from edgenext_tvm.errors import UserError

C_TARGET = Target("c")

C_TYPES = {
    "int8": "int8_t",
    "uint8": "uint8_t",
    "int16": "int16_t",
    "uint16": "uint16_t",
    "int32": "int32_t",
    "uint32": "uint32_t",
    "int64": "int64_t",
    "float32": "float",
    "float64": "double",
    "bool": "bool",
}
_BIT_CASTS = {
    ("float32", "int32"): "bits_of_float_i32",
    ("float32", "uint32"): "bits_of_float_u32",
    ("int32", "float32"): "float_of_bits_i32",
    ("uint32", "float32"): "float_of_bits_u32",
}
_FLOAT_CODES = {"float32": "<f", "float64": "<d"}
_LITERAL = re.compile(r"enx_literal_f(32|64)_([0-9a-f]+)\(\)")


def float_literal(value: float, dtype: str) -> str:
    """The shortest C literal that reads back as exactly `value`."""
    if np.isnan(value):
        return "NAN"
    if np.isinf(value):
        return "INFINITY" if value > 0 else "(-INFINITY)"
    text = repr(float(value)) if dtype == "float64" else f"{np.float32(value)!s}f"
    return f"({text})" if text.startswith("-") else text


_MATH_FUNCTIONS = {
    f"tirx.{name}": c_name
    for name, c_name in {
        "fabs": "fabs",
        "erf": "erf",
        "round": "nearbyint",
        "nearbyint": "nearbyint",
        "trunc": "trunc",
    }.items()
}
"""TVM's round is half to even, as nearbyint in the default rounding mode."""


def _bit_cast_types(call: tvm.ir.Call) -> tuple[str, str] | None:
    """(argument, result) dtypes of a bit cast; None for any other call."""
    if getattr(call.op, "name", "") != "tirx.reinterpret":
        return None
    return str(call.args[0].ty.dtype), str(call.ty.dtype)


def _check_printable(kernel: PlainKernel) -> None:
    # Errors raised inside structural_map lose their type on the way through TVM.
    floats: list[tirx.FloatImm] = []
    calls: list[tvm.ir.Call] = []
    structural_walk(kernel.func.body, [(tirx.FloatImm, floats.append), (tvm.ir.Call, calls.append)])
    for imm in floats:
        if str(imm.ty.dtype) not in _FLOAT_CODES:
            raise UserError(
                f"kernel '{kernel.name}': the constant {imm.value} has type {imm.ty.dtype}; C sources support "
                f"{' and '.join(_FLOAT_CODES)} constants"
            )
    for call in calls:
        pair = _bit_cast_types(call)
        if pair is not None and pair[0] != pair[1] and pair not in _BIT_CASTS:
            supported = ", ".join(f"{source} -> {result}" for source, result in _BIT_CASTS)
            raise UserError(
                f"kernel '{kernel.name}': cannot write the bit cast {pair[0]} -> {pair[1]} in C; supported: {supported}"
            )


def _exact_floats(imm: tirx.FloatImm) -> tirx.Expr:
    dtype = str(imm.ty.dtype)
    bits = struct.pack(_FLOAT_CODES[dtype], imm.value)[::-1].hex()
    return tirx.call_pure_extern(dtype, f"enx_literal_f{dtype[5:]}_{bits}")


def _exact_bit_casts(call: tvm.ir.Call) -> tirx.Expr:
    pair = _bit_cast_types(call)
    if pair is None:
        return call
    return call.args[0] if pair[0] == pair[1] else tirx.call_pure_extern(pair[1], _BIT_CASTS[pair], call.args[0])


def _math_functions(call: tvm.ir.Call) -> tirx.Expr:
    """A call of <math.h> for the operators that TVM's C printer does not know."""
    name = _MATH_FUNCTIONS.get(getattr(call.op, "name", ""))
    if name is None or str(call.ty.dtype) not in _FLOAT_CODES:
        return _exact_bit_casts(call)
    dtype = str(call.ty.dtype)
    return tirx.call_pure_extern(dtype, name + ("f" if dtype == "float32" else ""), *call.args)


def _print_literal(match: re.Match[str]) -> str:
    width, bits = match.groups()
    (value,) = struct.unpack("<f" if width == "32" else "<d", bytes.fromhex(bits)[::-1])
    return float_literal(value, f"float{width}")


def _parameter(pointer: Pointer) -> str:
    const = "const " if pointer.is_const else ""
    return f"{const}{C_TYPES[pointer.dtype]} *restrict {pointer.name}"


def prototype(kernel: PlainKernel) -> str:
    """The C declaration without the semicolon; read-only pointers are const and none aliases another."""
    parameters = [*(_parameter(p) for p in kernel.pointers), "int32_t begin", "int32_t end"]
    return f"int32_t {kernel.name}({', '.join(parameters)})"


def _definition(kernel: PlainKernel) -> str:
    _check_printable(kernel)
    func = structural_map(kernel.func, [(tirx.FloatImm, _exact_floats), (tvm.ir.Call, _math_functions)])
    with tvm.transform.PassContext(opt_level=3):
        lib = tvm.get_global_func("target.build.c")(tvm.IRModule({kernel.name: func}), C_TARGET)
    text = lib.inspect_source()
    header = re.search(rf"^TVM_DLL int32_t {re.escape(kernel.name)}\(([^)]*)\) {{$", text, re.MULTILINE)
    assert header is not None, text
    body = text[header.end() :].rstrip()
    # The printer may rename parameters, for example those that clash with each other.
    names = [parameter.split()[-1].lstrip("*") for parameter in header.group(1).split(", ")]
    pointers = tuple(dataclasses.replace(p, name=n) for n, p in zip(names[:-2], kernel.pointers, strict=True))
    signature = prototype(dataclasses.replace(kernel, pointers=pointers))
    signature = signature.replace("int32_t begin, int32_t end", f"int32_t {names[-2]}, int32_t {names[-1]}")
    return f"{signature} {{{_LITERAL.sub(_print_literal, body)}"


def kernel_definitions(kernels: Sequence[PlainKernel]) -> dict[str, str]:
    """C99 definition by kernel name; kernels must have been lowered for C_TARGET."""
    return {kernel.name: _definition(kernel) for kernel in kernels}


def used_bit_casts(definitions: Iterable[str]) -> list[tuple[str, str, str]]:
    """(function, C type of the argument, C type of the result) of the bit-cast helpers that the definitions call."""
    text = "\n".join(definitions)
    return [
        (name, C_TYPES[source], C_TYPES[result]) for (source, result), name in _BIT_CASTS.items() if f"{name}(" in text
    ]
