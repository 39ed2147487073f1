"""LiteRT with its XNNPACK delegate: float32, static int8, and dynamic-range int8 (weights int8, activations quantized
while running). NHWC input.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from benchmarks.peers.workers.protocol import Session, main

MODEL = "model.tflite"
STATIC_INT8_OPERATORS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


class LiteRtSession(Session):
    """One interpreter with exactly `threads` threads; XNNPACK is its default delegate."""

    def __init__(self, folder: Path, threads: int) -> None:
        self.interpreter = Interpreter(model_path=str(folder / MODEL), num_threads=threads)
        self.interpreter.allocate_tensors()
        self.input = self.interpreter.get_input_details()[0]
        self.output = self.interpreter.get_output_details()[0]

    def set_input(self, image: np.ndarray) -> None:
        nhwc = np.ascontiguousarray(image.transpose(0, 2, 3, 1))
        if self.input["dtype"] == np.int8:
            scale, zero_point = self.input["quantization"]
            nhwc = np.clip(np.rint(nhwc / scale) + zero_point, -128, 127).astype(np.int8)
        self.interpreter.set_tensor(self.input["index"], nhwc)

    def run(self) -> None:
        self.interpreter.invoke()

    def logits(self) -> np.ndarray:
        logits = self.interpreter.get_tensor(self.output["index"])[0]
        if self.output["dtype"] == np.int8:
            scale, zero_point = self.output["quantization"]
            return (logits.astype(np.float32) - zero_point) * scale
        return logits


def convert(case: Path, out: Path, precision: str) -> None:
    import litert_torch
    import torch

    from benchmarks.peers.workers.network import INPUT_SHAPE, PointwiseNetwork, load_network

    network = litert_torch.to_channel_last_io(PointwiseNetwork(load_network(case)), args=[0])
    n, c, h, w = INPUT_SHAPE
    exported = out / "float.tflite"
    litert_torch.convert(network.eval(), (torch.zeros(n, h, w, c),)).export(str(exported))
    if precision == "float32":
        exported.rename(out / MODEL)
    else:
        _quantize(exported, out, precision, np.load(case / "calibration.npy"))


def _quantize(exported: Path, out: Path, precision: str, images: np.ndarray) -> None:
    from ai_edge_quantizer import quantizer, recipe

    if precision == "int8-dynamic":
        quantizer.Quantizer(str(exported), recipe.dynamic_wi8_afp32()).quantize().export_model(str(out / MODEL))
        return
    signatures = Interpreter(model_path=str(exported)).get_signature_list()
    ((signature, names),) = signatures.items()
    (name,) = names["inputs"]
    feeds = [{name: np.ascontiguousarray(image[None].transpose(0, 2, 3, 1))} for image in images]
    # the recipe for all operators makes XNNPACK give up on many: three times as slow
    (everything,) = recipe.static_wi8_ai8()
    static = quantizer.Quantizer(str(exported), [{**everything, "operation": kind} for kind in STATIC_INT8_OPERATORS])
    ranges = static.calibrate({signature: feeds}, num_threads=1)
    static.quantize(ranges).export_model(str(out / MODEL))


def load(folder: Path, precision: str, threads: int) -> Session:
    return LiteRtSession(folder, threads)


if __name__ == "__main__":
    main(convert, load)
