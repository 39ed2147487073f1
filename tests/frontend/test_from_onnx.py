"""ImportOnnx: ONNX quantize/dequantize models enter by the same door and become the same integer kernels."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import tvm
from onnx.reference import ReferenceEvaluator

from edgenext_tvm.errors import UserError
from edgenext_tvm.frontend import import_onnx
from edgenext_tvm.kernels.base import kernel_of
from edgenext_tvm.passes.pipeline import LAYERS_ATTR, lower
from edgenext_tvm.passes.rewrite import bindings_of, layer_of, op_name
from edgenext_tvm.passes.strip_input_quantize import INPUT_ATTR
from edgenext_tvm.verify.reference import run_reference

SHAPE = (1, 3, 16, 16)


def convolutional(g):
    """Convolutions, ReLU without a quantization in front of it, hard swish, residual, pooling and Gemm."""
    x = g.qdq("x", 0.02, 0)
    w, s = g.weight((8, 3, 3, 3), 0)
    y = g.node("Relu", g.node("Conv", x, w, g.bias(0.02, s), strides=[2, 2], pads=[1, 1, 1, 1]))
    y = g.qdq(y, 0.02, -128)
    w, s = g.weight((8, 1, 3, 3), 0, 0.02)
    y = z = g.qdq(g.node("Conv", y, w, g.bias(0.02, s), pads=[1, 1, 1, 1], group=8), 0.05, -8)
    w, s = g.weight((16, 8, 1, 1), 0)
    y = g.qdq(g.node("Conv", y, w, g.bias(0.05, s)), 0.06, 0)
    y = g.qdq(g.node("HardSwish", y), 0.04, -100)
    w, s = g.weight((8, 16, 1, 1), 0)
    y = g.qdq(g.node("Conv", y, w, g.bias(0.04, s)), 0.08, 3)
    y = g.qdq(g.node("Add", y, z), 0.1, 1)
    y = g.qdq(g.node("Flatten", g.qdq(g.node("GlobalAveragePool", y), 0.05, 0)), 0.05, 0)
    w, s = g.weight((5, 8), 0)
    return g.node("Gemm", y, w, g.bias(0.05, s), transB=1)


def pointwise(g):
    """Tokens [1, T, C]: MatMul on three axes, GELU, LayerNormalization, mean over pixels."""
    x = g.qdq("x", 0.02, 0)
    w, s = g.weight((8, 3, 4, 4), 0)
    y = g.qdq(g.node("Conv", x, w, g.bias(0.02, s), strides=[4, 4]), 0.05, 5)
    y = g.node("Transpose", y, perm=[0, 2, 3, 1])
    y = z = g.node("Reshape", y, g.constant(np.array([1, 16, 8])))
    ones, zeros = g.constant(np.ones(8, np.float32)), g.constant(np.zeros(8, np.float32))
    y = g.qdq(g.node("LayerNormalization", y, ones, zeros, axis=-1, epsilon=1e-6), 0.03, 0)
    w, s = g.weight((8, 32), 1)
    y = g.qdq(g.node("Add", g.node("MatMul", y, w), g.bias(0.03, s)), 0.04, 5)
    y = g.qdq(g.node("Gelu", y), 0.03, -100)
    w, s = g.weight((32, 8), 1)
    y = g.node("Add", g.node("MatMul", y, w), g.bias(0.03, s))
    y = g.qdq(g.node("Add", z, y), 0.08, 0)
    y = g.node("Transpose", g.node("Reshape", y, g.constant(np.array([1, 4, 4, 8]))), perm=[0, 3, 1, 2])
    y = g.qdq(g.node("ReduceMean", y, g.constant(np.array([2, 3])), keepdims=0), 0.03, 0)
    w, s = g.weight((8, 5), 1)
    return g.node("Gemm", y, w, g.bias(0.03, s))


def by_parts(g):
    """GELU from Erf, ReLU6 from Clip, swish from Sigmoid, max pooling: what exporters make of activations."""
    x = g.qdq("x", 0.02, 0)
    w, s = g.weight((8, 3, 4, 4), 0)
    y = g.qdq(g.node("Conv", x, w, strides=[2, 2]), 0.05, 5)
    half = g.node("Mul", y, g.constant(np.float32(0.5)))
    gate = g.node("Add", g.node("Erf", g.node("Div", y, g.constant(np.float32(2**0.5)))), g.constant(np.float32(1)))
    y = g.qdq(g.node("Mul", half, gate), 0.04, -90)
    w, s = g.weight((8, 8, 1, 1), 0)
    y = g.node("Clip", g.node("Conv", y, w), g.constant(np.float32(0)), g.constant(np.float32(6)))
    y = g.qdq(y, 0.03, -120)
    y = g.qdq(g.node("Mul", y, g.node("Sigmoid", y)), 0.03, -120)
    y = g.qdq(g.node("MaxPool", y, kernel_shape=[7, 7]), 0.03, -120)
    w, s = g.weight((5, 8), 0)
    return g.node("Gemm", g.node("Flatten", y), w, g.bias(0.03, s), transB=1)


MODELS = {
    "convolutional": (convolutional, {"conv2d": 1, "depthwise": 1, "dense": 3, "add": 1, "global_avg_pool": 1}),
    "pointwise": (pointwise, {"conv2d": 1, "layer_norm": 1, "dense": 3, "global_avg_pool": 1}),
    "by_parts": (by_parts, {"conv2d": 1, "dense": 2, "lut": 1, "island": 1}),
}


def kinds(mod: tvm.IRModule) -> Counter[str]:
    kernels = [kernel_of(mod[v.args[0]]) for _, v in bindings_of(mod) if op_name(v).startswith("call_tir")]
    return Counter("island" if kernel is None else kernel.kind for kernel in kernels)


def build(onnx_graph, body, tmp_path: Path, dtype: type, opset: int = 21) -> tuple[onnx.ModelProto, Path]:
    graph = onnx_graph(dtype)
    model = graph.model(body(graph), SHAPE, (1, 5), opset)
    onnx.save(model, tmp_path / "model.onnx")
    return model, tmp_path / "model.onnx"


def int8_image(lowered: tvm.IRModule, x: np.ndarray) -> np.ndarray:
    params = json.loads(str(lowered["main"].attrs[INPUT_ATTR]))
    levels = np.rint(x.transpose(0, 2, 3, 1) / np.float32(params["scale"])) + params["zero_point"]
    return np.clip(levels, -128, 127).astype(np.int8)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_supported_layers_are_integer_kernels(onnx_graph, tmp_path: Path, name: str, dtype: type) -> None:
    body, expected = MODELS[name]
    _, path = build(onnx_graph, body, tmp_path, dtype)
    assert kinds(lower(import_onnx(path))) == expected


@pytest.mark.parametrize("name", ["convolutional", "pointwise"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_the_twins_compute_what_the_onnx_reference_computes(onnx_graph, tmp_path, name: str, dtype: type) -> None:
    model, path = build(onnx_graph, MODELS[name][0], tmp_path, dtype)
    lowered = lower(import_onnx(path))
    reference = ReferenceEvaluator(model)
    rng = np.random.default_rng(3)
    errors, sizes = [], []
    for _ in range(4):
        x = rng.normal(0, 1.5, SHAPE).astype(np.float32)
        (expected,) = reference.run(None, {"x": x})
        errors.append(run_reference(lowered, int8_image(lowered, x)) - expected)
        sizes.append(expected)
    # Each layer may round the other way where float32 is within an ulp of a tie; the head sums such levels up.
    assert np.linalg.norm(errors) <= 0.02 * np.linalg.norm(sizes)


@pytest.mark.parametrize("opset", [14, 16, 18, 20])
def test_opsets_agree(onnx_graph, tmp_path: Path, opset: int) -> None:
    _, path = build(onnx_graph, convolutional, tmp_path, np.uint8)
    newest = lower(import_onnx(path))
    _, path = build(onnx_graph, convolutional, tmp_path, np.uint8, opset)
    tvm.ir.assert_structural_equal(lower(import_onnx(path)), newest)


def test_signed_and_unsigned_activations_are_the_same_program(onnx_graph, tmp_path: Path) -> None:
    programs = [lower(import_onnx(build(onnx_graph, convolutional, tmp_path, t)[1])) for t in (np.uint8, np.int8)]
    tvm.ir.assert_structural_equal(*programs)


def test_every_call_names_an_onnx_node(onnx_graph, tmp_path: Path) -> None:
    model, path = build(onnx_graph, convolutional, tmp_path, np.uint8)
    imported = import_onnx(path)
    assert [layer_of(v) for _, v in bindings_of(imported) if op_name(v) == "nn.conv2d"] == [
        f"/Conv_{i}" for i in range(4)
    ]
    lowered = lower(imported)
    layers = json.loads(str(lowered["main"].attrs[LAYERS_ATTR]))
    calls = [var.name for var, value in bindings_of(lowered) if op_name(value).startswith("call_tir")]
    assert {layers[name] for name in calls} <= {node.name for node in model.graph.node}


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.onnx: no such file; give the path of an \.onnx file"):
        import_onnx(tmp_path / "absent.onnx")


def test_a_truncated_file_is_named(onnx_graph, tmp_path: Path) -> None:
    _, path = build(onnx_graph, convolutional, tmp_path, np.uint8)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=r"model\.onnx: not a valid ONNX file .*is it truncated"):
        import_onnx(path)


@pytest.mark.parametrize("content", [b"", b"this is no model\n" * 10, b"PK\x03\x04" + bytes(100)])
def test_a_file_of_another_format_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.onnx"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"other\.onnx: not a valid ONNX file"):
        import_onnx(path)


def test_a_dynamic_shape_is_refused(onnx_graph, tmp_path: Path) -> None:
    graph = onnx_graph()
    onnx.save(graph.model(graph.node("Relu", "x"), ("batch", 3, 16, 16), ("batch", 3, 16, 16)), tmp_path / "model.onnx")
    with pytest.raises(UserError, match="input 'x' has the dynamic dimension 'batch'; only static shapes"):
        import_onnx(tmp_path / "model.onnx")


def test_several_outputs_are_refused(onnx_graph, tmp_path: Path) -> None:
    graph = onnx_graph()
    model = graph.model(graph.node("Relu", "x"), SHAPE, SHAPE)
    model.graph.output.append(onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, SHAPE))
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(UserError, match="1 inputs and 2 outputs; exactly one image tensor in"):
        import_onnx(tmp_path / "model.onnx")


def test_an_operator_that_cannot_be_imported_is_named(onnx_graph, tmp_path: Path) -> None:
    graph = onnx_graph()
    onnx.save(graph.model(graph.node("Det", "x"), (1, 3, 4, 4), (1, 3)), tmp_path / "model.onnx")
    with pytest.raises(UserError, match=r"model\.onnx: TVM cannot import this ONNX model: .*Det"):
        import_onnx(tmp_path / "model.onnx")


@pytest.mark.parametrize("name", ["pointwise", "by_parts"])
def test_an_onnx_file_becomes_a_program(onnx_graph, tmp_path: Path, name: str) -> None:
    from edgenext_tvm.api import compile_model, verify_build

    _, path = build(onnx_graph, MODELS[name][0], tmp_path, np.uint8)
    result = compile_model(str(path), out=tmp_path / "build")
    assert result.selftest is True
    report = verify_build(tmp_path / "build", "synthetic:4")
    assert report.compared_with == "ONNX program"
    assert report.passed and report.relative_l2 < 0.02
    # an island computes in float and has no twin
    assert report.bit_identical_to_reference is (True if name == "pointwise" else None)


def test_activations_of_16_bits_are_refused_by_the_name_of_their_node(onnx_graph, tmp_path: Path) -> None:
    _, path = build(onnx_graph, convolutional, tmp_path, np.int16)
    with pytest.raises(UserError, match=r"node '.+' quantizes activations to int16; int8 and uint8 are supported"):
        import_onnx(path)
