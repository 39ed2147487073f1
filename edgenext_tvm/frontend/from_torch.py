"""Import a torch ExportedProgram (float or QDQ) as a Relax module that remembers PyTorch's module names."""

from __future__ import annotations

import numpy as np
import torch
import tvm
from tvm import relax
from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

from edgenext_tvm.errors import UserError
from edgenext_tvm.frontend.name_layers import name_layers
from edgenext_tvm.kernels.wide import QRANGE

_TVM_DTYPES = {torch.int8: "int8", torch.uint8: "uint8", torch.int16: "int16", torch.int32: "int32"}


def import_program(exported: torch.export.ExportedProgram) -> tvm.IRModule:
    """Return a module with one function ``main(x) -> logits`` that computes what `exported` computes.

    ``quantized_decomposed`` operators become ``R.quantize`` / ``R.dequantize``, of which int16 ones always mean wide
    tensors (`kernels.wide`: 12 bits), in [-2048, 2047]; parameters become constants;
    every call's span names the PyTorch module that it came from (``stages.0.blocks.1.mlp.fc1``).

    Raises UserError for a program with dynamic shapes, several inputs or outputs, other int16 tensors, or an operator
    that TVM cannot import; the message names the operator and its module.
    """
    exported = exported.run_decompositions()
    _check_signature(exported)
    importer = ExportedProgramImporter()
    converters = {
        "quantize_per_tensor.default": _convert_quantize_per_tensor,
        "dequantize_per_tensor.default": _convert_dequantize_per_tensor,
        "dequantize_per_channel.default": _convert_dequantize_per_channel,
    }
    try:
        mod = importer.from_exported_program(
            exported,
            keep_params_as_input=False,
            unwrap_unit_return_tuple=True,
            no_bind_return_tuple=False,
            custom_convert_map=converters,
        )
    except (AssertionError, NotImplementedError, ValueError) as error:
        raise UserError(_unsupported_message(exported, error)) from error
    return name_layers(mod, _module_of_var(importer))


def _convert_quantize_per_tensor(node: torch.fx.Node, importer: ExportedProgramImporter) -> relax.Var:
    x, scale, zero_point, _, _, torch_dtype = node.args
    dtype = _TVM_DTYPES[torch_dtype]
    return importer.block_builder.emit(
        relax.op.quantize(
            importer.env[x], relax.const(scale, "float32"), relax.const(np.array(zero_point, dtype)), -1, dtype
        )
    )


def _convert_dequantize_per_tensor(node: torch.fx.Node, importer: ExportedProgramImporter) -> relax.Var:
    x, scale, zero_point, _, _, torch_dtype = node.args[:6]
    zero = relax.const(np.array(zero_point, _TVM_DTYPES[torch_dtype]))
    return importer.block_builder.emit(
        relax.op.dequantize(importer.env[x], relax.const(scale, "float32"), zero, -1, "float32")
    )


def _convert_dequantize_per_channel(node: torch.fx.Node, importer: ExportedProgramImporter) -> relax.Var:
    x, scales, _, axis = node.args[:4]
    zeros = relax.const(np.zeros(node.meta["val"].shape[axis], "int8"))
    return importer.block_builder.emit(
        relax.op.dequantize(importer.env[x], importer.env[scales], zeros, axis, "float32")
    )


def _check_signature(exported: torch.export.ExportedProgram) -> None:
    signature = exported.graph_signature
    inputs, outputs = signature.user_inputs, signature.user_outputs
    if len(inputs) != 1 or len(outputs) != 1:
        raise UserError(
            f"the program has {len(inputs)} inputs and {len(outputs)} outputs; exactly one image tensor in and one "
            "tensor of logits out are supported. Export a wrapper module that takes and returns one tensor."
        )
    _check_symmetric_weights(exported)
    _check_wide_tensors(exported)
    value = next(n.meta["val"] for n in exported.graph.nodes if n.name == inputs[0])
    if any(not isinstance(extent, int) for extent in value.shape):
        raise UserError(
            f"the program's input has the dynamic shape {tuple(value.shape)}; only static shapes are compiled. "
            "Export it again without dynamic_shapes."
        )


def _check_symmetric_weights(exported: torch.export.ExportedProgram) -> None:
    tensors = {**exported.constants, **exported.state_dict}
    names = exported.graph_signature.inputs_to_buffers
    for node in exported.graph.nodes:
        if node.op == "call_function" and "dequantize_per_channel" in str(node.target):
            zero_points = tensors.get(names.get(node.args[2].name, ""))
            if zero_points is None or bool(zero_points.ne(0).any()):
                raise UserError(
                    f"the weight '{node.args[0].name}' has per-channel zero points other than 0; only symmetric int8 "
                    "weights are supported. Quantize weights with torch.per_channel_symmetric."
                )


def _check_wide_tensors(exported: torch.export.ExportedProgram) -> None:
    for node in exported.graph.nodes:
        is_quantize = str(node.target).startswith("quantized_decomposed.quantize_per_tensor")
        if is_quantize and node.args[5] == torch.int16 and tuple(node.args[3:5]) != QRANGE["int16"]:
            low, high = QRANGE["int16"]
            raise UserError(
                f"module '{_producer_path(node) or 'top level'}' quantizes to int16 in {list(node.args[3:5])}; "
                f"values of int16 tensors keep to [{low}, {high}]. Give it that quant_min and quant_max, or use int8."
            )


def _unsupported_message(exported: torch.export.ExportedProgram, error: Exception) -> str:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    culprits = [
        f"{node.target} (module '{_module_path(node) or 'top level'}')"
        for node in exported.graph.nodes
        if node.op == "call_function" and getattr(node.target, "__name__", str(node.target)) in text
    ]
    where = f" It is used by: {', '.join(culprits[:3])}." if culprits else ""
    return (
        f"TVM cannot import this program: {text}.{where} Replace the operator in the PyTorch model by supported ones "
        "(convolution, linear, layer_norm, GELU, softmax, matmul, elementwise and data movement)."
    )


def _module_path(node: torch.fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values()]
    return paths[-1] if paths else ""


def _module_of_var(importer: ExportedProgramImporter) -> dict[relax.Var, str]:
    return {
        value: _module_path(node) or _producer_path(node)
        for node, value in importer.env.items()
        if isinstance(node, torch.fx.Node) and isinstance(value, relax.Var)
    }


def _producer_path(node: torch.fx.Node) -> str:
    """Quantize nodes carry no module of their own: they belong to what they quantize."""
    while node.args and isinstance(node.args[0], torch.fx.Node):
        node = node.args[0]
        if path := _module_path(node):
            return path
    return ""
