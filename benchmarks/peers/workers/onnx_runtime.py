"""ONNX Runtime on its CPU provider: float32, and static int8 (QDQ, weights per channel)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime

from benchmarks.peers.workers.protocol import Session, main

MODEL = "model.onnx"


class OnnxRuntimeSession(Session):
    """One session, sequential, exactly `threads` threads in operators."""

    def __init__(self, folder: Path, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        # weights come as denormal-free normals, but padding and GELU tails need not be
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
        self.session = onnxruntime.InferenceSession(str(folder / MODEL), options, providers=["CPUExecutionProvider"])
        self.name = self.session.get_inputs()[0].name

    def set_input(self, image: np.ndarray) -> None:
        self.feed = {self.name: np.ascontiguousarray(image)}

    def run(self) -> None:
        (self.output,) = self.session.run(None, self.feed)

    def logits(self) -> np.ndarray:
        return self.output[0]


def convert(case: Path, out: Path, precision: str) -> None:
    from benchmarks.peers.workers.network import PointwiseNetwork, export_onnx, load_network

    exported = out / "float.onnx"
    export_onnx(PointwiseNetwork(load_network(case)), exported)
    if precision == "float32":
        exported.rename(out / MODEL)
    else:
        _quantize(exported, out, np.load(case / "calibration.npy"))


def _quantize(exported: Path, out: Path, images: np.ndarray) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            self.feeds: Iterator[dict[str, np.ndarray]] = iter([{"image": image[None]} for image in images])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.feeds, None)

    prepared = out / "prepared.onnx"
    quant_pre_process(str(exported), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared),
        str(out / MODEL),
        Images(),
        quant_format=QuantFormat.QDQ,
        # u8 times s8 is what VNNI multiplies
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        # what else it can quantize (MatMul, Mul, Split, Concat) costs more in conversions than it wins
        op_types_to_quantize=["Conv", "Gemm", "Add"],
    )


def load(folder: Path, precision: str, threads: int) -> Session:
    return OnnxRuntimeSession(folder, threads)


if __name__ == "__main__":
    main(convert, load)
