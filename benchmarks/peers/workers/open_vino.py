"""OpenVINO on its CPU plugin: float32 or bfloat16 arithmetic, and NNCF int8 with either for what stays float."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino

from benchmarks.peers.workers.protocol import Session, main

MODEL = "model.xml"


class OpenVinoSession(Session):
    """One stream, latency hint, exactly `threads` threads."""

    def __init__(self, folder: Path, precision: str, threads: int) -> None:
        arithmetic = "bf16" if "bfloat16" in precision else "f32"
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": str(threads),
            "INFERENCE_PRECISION_HINT": arithmetic,
        }
        core = openvino.Core()
        if arithmetic == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise SystemExit("this CPU has no bfloat16 arithmetic")
        self.request = core.compile_model(str(folder / MODEL), "CPU", settings).create_infer_request()

    def set_input(self, image: np.ndarray) -> None:
        self.tensor = openvino.Tensor(np.ascontiguousarray(image))
        self.request.set_input_tensor(self.tensor)

    def run(self) -> None:
        self.request.infer()

    def logits(self) -> np.ndarray:
        return self.request.get_output_tensor().data[0]


def convert(case: Path, out: Path, precision: str) -> None:
    from benchmarks.peers.workers.network import PointwiseNetwork, export_onnx, load_network

    exported = out / "float.onnx"
    export_onnx(PointwiseNetwork(load_network(case)), exported)
    model = openvino.convert_model(str(exported))
    if "int8" in precision:
        import nncf

        images = [image[None] for image in np.load(case / "calibration.npy")]
        model = nncf.quantize(
            model,
            nncf.Dataset(images),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(images),
        )
    openvino.save_model(model, str(out / MODEL), compress_to_fp16=False)


def load(folder: Path, precision: str, threads: int) -> Session:
    return OpenVinoSession(folder, precision, threads)


if __name__ == "__main__":
    main(convert, load)
