from __future__ import annotations

import json

import pytest

from edgenext_tvm.errors import UserError
from edgenext_tvm.kernels import (
    INPLACE_ATTR,
    KERNEL_ATTR,
    NUM_WORKSPACES_ATTR,
    Add,
    Conv2d,
    Dense,
    Depthwise,
    GlobalAvgPool,
    InvertedBottleneck,
    Kernel,
    LayerNorm,
    Lut,
    Rescale,
    XcaApply,
    XcaScores,
    kernel_of,
)
from edgenext_tvm.kernels.sample_inputs import PATTERNS, sample_inputs

EXAMPLES = [
    Add(4, 6, b_channels=9, b_offset=3),
    Conv2d(1, 8, 8, 3, 16, 4, 4, 4, 4),
    Dense(4, 8, 16, "residual"),
    Depthwise(1, 6, 6, 8, 3, 3, 1, 1, 1, 1, 1, 1, y_channels=24, y_offset=8, inplace=True),
    GlobalAvgPool(1, 4, 4, 8),
    InvertedBottleneck(4, 8, 24, 8, "residual"),
    LayerNorm(4, 8, affine=True),
    Lut(4, 8, y_channels=16, y_offset=8, inplace=True),
    Rescale(4, 8, "int8", "int8", y_channels=16, y_offset=8, inplace=True),
    XcaApply(8, 16, 4),
    XcaScores(8, 16, 4),
]
WIDE = [
    Add(4, 6, b_channels=9, b_offset=3, b_dtype="int16"),
    Conv2d(1, 8, 8, 3, 16, 4, 4, 4, 4, out_dtype="int16"),
    Dense(4, 8, 16, "residual", r_dtype="int16"),
    Depthwise(1, 6, 6, 8, 3, 3, x_dtype="int16", y_channels=24, y_offset=8, inplace=True),
    GlobalAvgPool(1, 4, 4, 8, out_dtype="int16"),
    LayerNorm(4, 8, True, "int16", "int16"),
    Rescale(4, 8, "int8"),
]


@pytest.mark.parametrize("kernel", EXAMPLES + WIDE, ids=lambda kernel: kernel.task_hint)
class TestEveryKernel:
    def test_json_round_trips(self, kernel: Kernel) -> None:
        assert Kernel.from_json(kernel.to_json()) == kernel
        assert json.loads(kernel.to_json())["kind"] == kernel.kind

    def test_function_carries_its_description(self, kernel: Kernel) -> None:
        func = kernel.prim_func("some_name")
        assert kernel_of(func) == kernel
        assert func.attrs["global_symbol"] == "some_name"
        assert func.attrs[KERNEL_ATTR] == kernel.to_json()
        assert func.attrs[NUM_WORKSPACES_ATTR] == kernel.num_workspaces
        assert func.attrs[INPLACE_ATTR] == kernel.inplace_input
        assert ("tirx.noalias" in func.attrs) == (kernel.inplace_input < 0)

    def test_arguments_are_inputs_then_outputs(self, kernel: Kernel) -> None:
        shapes = [(tuple(int(d) for d in p.shape), str(p.dtype)) for p in kernel.prim_func("f").params]
        assert shapes == kernel.input_types() + kernel.output_types()

    def test_twin_returns_the_first_output(self, kernel: Kernel) -> None:
        shape, dtype = kernel.output_types()[0]
        for pattern in PATTERNS:
            y = kernel.reference(*sample_inputs(kernel, 0, pattern))
            assert (y.shape, y.dtype.name) == (shape, dtype)

    def test_twin_changes_no_input(self, kernel: Kernel) -> None:
        inputs = sample_inputs(kernel)
        kernel.reference(*inputs)
        for before, after in zip(sample_inputs(kernel), inputs, strict=True):
            assert (before == after).all()


def test_an_int8_description_does_not_mention_wide_tensors() -> None:
    for kernel in EXAMPLES:
        assert not kernel.is_wide
        assert "int16" not in kernel.to_json() + kernel.task_hint
        if not isinstance(kernel, Rescale):
            assert not {"x_dtype", "r_dtype", "a_dtype", "b_dtype"} & json.loads(kernel.to_json()).keys()
    assert json.loads(Depthwise(1, 6, 6, 8, 3, 3).to_json()).keys().isdisjoint({"out_dtype"})
    assert json.loads(Dense(1, 6, 6).to_json())["out_dtype"] == "int8"


def test_a_wide_description_names_the_wide_tensors() -> None:
    for kernel in WIDE:
        assert kernel.is_wide
        assert "_dtype=int16" in kernel.task_hint


def test_every_kind_has_an_example() -> None:
    kinds = {kernel.kind for kernel in EXAMPLES}
    with pytest.raises(UserError, match=r"unknown kernel kind 'gru'; known kinds: (.*)") as error:
        Kernel.from_json('{"kind": "gru"}')
    assert set(str(error.value).split(": ")[1].split(", ")) == kinds


def test_unknown_field_names_the_known_ones() -> None:
    with pytest.raises(UserError, match="kernel 'add' has no field stride; its fields are a_channels, a_dtype"):
        Kernel.from_json('{"kind": "add", "t": 1, "c": 1, "stride": 2}')


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Dense(0, 8, 8), "dense: t is 0, must be at least 1"),
        (lambda: Dense(1, 8, 8, "relu"), "dense: epilogue is 'relu', must be one of none, lut, residual"),
        (lambda: Dense(1, 8, 8, "lut", "float32"), "dense: epilogue is 'lut', must be one of none"),
        (lambda: Dense(1, 8, 8, "none", "uint8"), "dense: out_dtype is 'uint8', must be one of int8, int16, float32"),
        (lambda: Dense(1, 8, 8, "lut", "int16"), "dense: out_dtype is 'int16', must be one of int8"),
        (lambda: Dense(1, 8, 8, r_dtype="int16"), "dense: r_dtype is 'int16', must be one of int8"),
        (lambda: Add(1, 8, a_dtype="int32"), "add: a_dtype is 'int32', must be one of int8, int16"),
        (lambda: LayerNorm(4, 512, x_dtype="int16"), "layer_norm: c is 512, at most 511 channels of a wide tensor fit"),
        (lambda: GlobalAvgPool(1, 1024, 513, 8, "int16"), "1024x513 pixels of a wide tensor, at most 524288 fit"),
        (lambda: Lut(1, 8, 8, 4), r"lut: channels \[4, 12\) \(x_offset\) do not fit in x_channels=8"),
        (lambda: Add(1, 8, b_channels=4), r"add: channels \[0, 8\) \(b_offset\) do not fit in b_channels=4"),
        (lambda: Conv2d(1, 2, 2, 3, 8, 4, 4), "a 4x4 window does not fit a 2x2 image"),
        (lambda: Conv2d(1, 8, 8, 3, 8, 3, 3, pad_top=-1), "conv2d: pad_top is -1, must be at least 0"),
        (lambda: LayerNorm(4, 4096), "layer_norm: c is 4096, at most 2048 channels"),
        (lambda: XcaScores(4, 10, 4), "xca_scores: c=10 does not divide into heads=4"),
        (lambda: XcaApply(4, 1024, 2), "gives 512 channels a head, at most 256 are allowed; use more heads"),
        (lambda: XcaScores(40_000, 16, 4), "t is 40000, at most 33000 tokens fit int32 sums; use a smaller image"),
    ],
)
def test_impossible_shapes_are_refused(build, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build()
