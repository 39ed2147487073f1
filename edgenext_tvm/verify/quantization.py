"""How a lowered module's input is quantized, read from the attribute that lowering leaves on `main`."""

from __future__ import annotations

import json

import tvm

from edgenext_tvm.passes.strip_input_quantize import INPUT_ATTR


def input_quantization(mod: tvm.IRModule) -> tuple[float, int] | None:
    """(scale, zero point) with real = scale * (q - zero point); None for a module whose input is float32."""
    attributes = mod["main"].attrs
    if attributes is None or INPUT_ATTR not in attributes:
        return None
    values = json.loads(str(attributes[INPUT_ATTR]))
    return float(values["scale"]), int(values["zero_point"])
