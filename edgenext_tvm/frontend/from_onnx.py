"""Import an ONNX QDQ model as a Relax module in the form that the torch importer gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import tvm
from google.protobuf.message import DecodeError
from tvm import relax
from tvm.relax.frontend.onnx.onnx_frontend import ONNXGraphImporter

from edgenext_tvm.errors import UserError
from edgenext_tvm.frontend.name_layers import name_layers


def import_onnx(path: str | Path) -> tvm.IRModule:
    """Return a module with one function ``main(x) -> logits`` that computes what the ONNX file computes.

    QuantizeLinear and DequantizeLinear become ``R.quantize`` / ``R.dequantize``; every call's span names the
    ONNX node that it came from.

    Raises UserError for a missing or damaged file, dynamic shapes, several inputs or outputs, int16
    activations, or an operator that TVM cannot import; the message names the file.
    """
    path = Path(path)
    model = _load(path)
    _check_signature(model, path)
    try:
        importer = _NamingImporter({}, "float32")
        mod = importer.from_onnx(model.graph, _opset(model))
    except (ValueError, TypeError, AttributeError, AssertionError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{path}: TVM cannot import this ONNX model: {first}. Export it again with static shapes and standard "
            "operators (opset 13 to 21)."
        ) from error
    mod = name_layers(mod, importer.layer_of_var)
    _check_widths(mod, path)
    mod = relax.transform.DecomposeOpsForInference("main")(mod)
    return tvm.IRModule({**mod.functions, mod.get_global_var("main"): _without_input_attributes(mod["main"])})


class _NamingImporter(ONNXGraphImporter):
    """TVM's importer, which also remembers the ONNX node of every result."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.layer_of_var: dict[relax.Var, str] = {}

    def _convert_operator(self, op_name: str, inputs: list[relax.Expr], attrs: dict, opset: int) -> relax.Expr:
        result = _clip(inputs) if op_name == "Clip" else None
        if result is None:
            result = super()._convert_operator(op_name, inputs, attrs, opset)
        name = attrs["tvm_custom"]["name"]
        if name and isinstance(result, relax.Call) and isinstance(result.ty, relax.TensorType):
            # Bound now and not at its first reader, so that the binding can be told apart from the reader's.
            result = self.bb.emit(result)
            self.layer_of_var[result] = name
        return result


def _clip(inputs: list[relax.Expr]) -> relax.Call | None:
    """Return a clip between constants as one operator, where TVM's importer would guard against NaN bounds."""
    x, *bounds = inputs
    if not bounds or any(b is not None and not isinstance(b, tvm.ir.GenericConst) for b in bounds):
        return None
    low, high = ([None if b is None else float(b.value.numpy().reshape(())) for b in bounds] + [None])[:2]
    return relax.op.clip(x, float("-inf") if low is None else low, float("inf") if high is None else high)


def _opset(model: onnx.ModelProto) -> int:
    return next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def _load(path: Path) -> onnx.ModelProto:
    if not path.is_file():
        raise UserError(f"{path}: no such file; give the path of an .onnx file")
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(f"{path}: not a valid ONNX file ({first}); is it truncated, or of another format?") from error
    return model


def _check_widths(mod: tvm.IRModule, path: Path) -> None:
    for block in mod["main"].body.blocks:
        for binding in block.bindings:
            call = binding.value
            is_quantize = isinstance(call, relax.Call) and getattr(call.op, "name", "") == "relax.quantize"
            # From here on int16 means 12 bits (kernels.wide), for which ONNX has no quantization.
            if is_quantize and str(call.attrs.out_dtype) == "int16":
                layer = call.span.source_name.name if call.span is not None else "?"
                raise UserError(
                    f"{path}: node '{layer}' quantizes activations to int16; int8 and uint8 are supported. "
                    "Export the model with 8-bit activations"
                )


def _check_signature(model: onnx.ModelProto, path: Path) -> None:
    initializers = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in initializers]
    if len(inputs) != 1 or len(model.graph.output) != 1:
        raise UserError(
            f"{path}: the model has {len(inputs)} inputs and {len(model.graph.output)} outputs; exactly one image "
            "tensor in and one tensor of logits out are supported"
        )
    for dim in inputs[0].type.tensor_type.shape.dim:
        if not dim.HasField("dim_value") or dim.dim_value < 1:
            raise UserError(
                f"{path}: the input '{inputs[0].name}' has the dynamic dimension '{dim.dim_param or '?'}'; only static "
                "shapes are compiled. Export with a fixed input shape such as 1x3x256x256."
            )


def _without_input_attributes(main: relax.Function) -> relax.Function:
    return relax.Function(main.params, main.body, main.ret_ty, main.is_pure)
