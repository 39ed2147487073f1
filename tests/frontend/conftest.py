"""Builds small ONNX quantize/dequantize models node by node."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper


class OnnxGraph:
    """Emits nodes named after their operator; quantization per tensor, weights per output channel."""

    def __init__(self, dtype: type = np.uint8, seed: int = 0) -> None:
        self.dtype = dtype
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def constant(self, array) -> str:
        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, operator: str, *inputs: str, **attributes) -> str:
        output = f"v{len(self.nodes)}"
        name = f"/{operator}_{sum(n.op_type == operator for n in self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], name=name, **attributes))
        return output

    def qdq(self, x: str, scale: float, zero_point: int) -> str:
        """`zero_point` is that of int8; unsigned activations stand 128 higher."""
        zero = self.dtype(zero_point + (128 if self.dtype is np.uint8 else 0))
        params = self.constant(np.float32(scale)), self.constant(zero)
        return self.node("DequantizeLinear", self.node("QuantizeLinear", x, *params), *params)

    def weight(self, shape: tuple[int, ...], axis: int, scale: float = 0.01) -> tuple[str, np.ndarray]:
        scales = (scale * self.rng.uniform(0.5, 1.5, shape[axis])).astype(np.float32)
        data = self.constant(self.rng.integers(-127, 128, shape).astype(np.int8))
        zeros = self.constant(np.zeros(shape[axis], np.int8))
        return self.node("DequantizeLinear", data, self.constant(scales), zeros, axis=axis), scales

    def bias(self, scale_in: float, scales: np.ndarray) -> str:
        """An int32 constant in steps of the accumulator, as ONNX Runtime writes it."""
        data = self.constant(self.rng.integers(-500, 500, scales.size).astype(np.int32))
        zeros = self.constant(np.zeros(scales.size, np.int32))
        return self.node("DequantizeLinear", data, self.constant((scale_in * scales).astype(np.float32)), zeros, axis=0)

    def model(self, output: str, shape: tuple, out_shape: tuple, opset: int = 21) -> onnx.ModelProto:
        values = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
        results = [helper.make_tensor_value_info(output, TensorProto.FLOAT, out_shape)]
        graph = helper.make_graph(self.nodes, "graph", values, results, self.initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
        model.ir_version = 10
        onnx.checker.check_model(model)
        return model


@pytest.fixture
def onnx_graph() -> type[OnnxGraph]:
    return OnnxGraph
