"""ncnn through pnnx: float32, bfloat16 storage, and int8 convolutions with either between them.

ncnn's wheel lacks the tools that calibrate and quantize, so `convert` does their work: it measures each convolution's
input on the calibration images and writes the scales where ncnn's loader expects them (int8_scale_term of Convolution,
ConvolutionDepthWise and InnerProduct); ncnn quantizes the weights itself when it loads them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import ncnn
import numpy as np

from benchmarks.peers.workers.protocol import Session, main

PARAM, BIN = "model.ncnn.param", "model.ncnn.bin"
INPUT, OUTPUT = "in0", "out0"
INT8_SCALE_TERM = 8
# per layer type, the numbers in its line of the param file: outputs, bias yes/no, weights
WEIGHT_KEYS = {"Convolution": (0, 5, 6), "ConvolutionDepthWise": (0, 5, 6), "InnerProduct": (0, 1, 2)}
FLOAT32_TAG = 0


def load_net(param: Path, weights: Path, precision: str, threads: int) -> ncnn.Net:
    """The loaded network; storage is bfloat16 where the precision says so, float32 else."""
    net = ncnn.Net()
    net.opt.num_threads = threads
    net.opt.use_vulkan_compute = False
    bfloat16 = "bfloat16" in precision
    net.opt.use_bf16_storage = net.opt.use_bf16_packed = bfloat16
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    if net.load_param(str(param)) != 0 or net.load_model(str(weights)) != 0:
        raise SystemExit(f"ncnn cannot load {param}")
    return net


class NcnnSession(Session):
    """A new extractor per run, as ncnn wants it."""

    def __init__(self, folder: Path, precision: str, threads: int) -> None:
        ncnn.set_omp_num_threads(threads)
        self.net = load_net(folder / PARAM, folder / BIN, precision, threads)

    def set_input(self, image: np.ndarray) -> None:
        self.mat = ncnn.Mat(np.ascontiguousarray(image[0])).clone()

    def run(self) -> None:
        extractor = self.net.create_extractor()
        extractor.input(INPUT, self.mat)
        status, self.output = extractor.extract(OUTPUT)
        if status != 0:
            raise SystemExit(f"ncnn's extract failed with {status}")

    def logits(self) -> np.ndarray:
        return np.array(self.output)


def convert(case: Path, out: Path, precision: str) -> None:
    import pnnx
    import torch

    from benchmarks.peers.workers.network import INPUT_SHAPE, PointwiseNetwork, load_network

    with contextlib.chdir(out):
        pnnx.export(
            PointwiseNetwork(load_network(case)), "model.pt", torch.zeros(INPUT_SHAPE), check_trace=False, fp16=False
        )
    if not (out / PARAM).is_file():
        raise SystemExit("pnnx wrote no ncnn model")
    if "int8" in precision:
        _add_int8_scales(out, np.load(case / "calibration.npy"))


@dataclass
class _Layer:
    fields: list[str]

    @property
    def kind(self) -> str:
        return self.fields[0]

    @property
    def input(self) -> str:
        return self.fields[4]

    def number(self, key: int, default: int = 0) -> int:
        start = 4 + int(self.fields[2]) + int(self.fields[3])
        values = dict(field.split("=", 1) for field in self.fields[start:])
        return int(values.get(str(key), default))


def _add_int8_scales(out: Path, images: np.ndarray) -> None:
    lines = (out / PARAM).read_text().splitlines()
    layers = [_Layer(line.split()) for line in lines[2:] if line.strip()]
    quantized = [layer for layer in layers if layer.kind in WEIGHT_KEYS]
    largest = _input_ranges(out, sorted({layer.input for layer in quantized}), images)
    pieces: list[bytes] = []
    for layer, taken in _weights(layers, (out / BIN).read_bytes()):
        pieces.append(taken)
        if layer not in quantized:
            continue
        outputs, _, weights = (layer.number(key) for key in WEIGHT_KEYS[layer.kind])
        values = np.frombuffer(taken, np.float32, weights, offset=4).reshape(outputs, -1)
        scales = 127 / np.maximum(np.abs(values).max(1), 1e-9)
        pieces.append(np.append(scales, 127 / largest[layer.input]).astype(np.float32).tobytes())
        layer.fields.append(f"{INT8_SCALE_TERM}=1")
    (out / BIN).write_bytes(b"".join(pieces))
    (out / PARAM).write_text("\n".join([*lines[:2], *(" ".join(layer.fields) for layer in layers)]) + "\n")


def _input_ranges(out: Path, blobs: list[str], images: np.ndarray) -> dict[str, float]:
    net = load_net(out / PARAM, out / BIN, "float32", os.cpu_count() or 1)
    largest = dict.fromkeys(blobs, 1e-9)
    for image in images:
        extractor = net.create_extractor()
        extractor.set_light_mode(False)
        extractor.input(INPUT, ncnn.Mat(np.ascontiguousarray(image)).clone())
        for blob in blobs:
            status, mat = extractor.extract(blob)
            if status != 0:
                raise SystemExit(f"ncnn cannot give blob {blob}")
            largest[blob] = max(largest[blob], float(np.abs(np.array(mat)).max()))
    return largest


def _weights(layers: list[_Layer], data: bytes) -> Iterator[tuple[_Layer, bytes]]:
    """Each layer with its bytes of the weight file; SystemExit where the file holds what this does not know."""
    at = 0
    for layer in layers:
        size = 0
        if layer.kind in WEIGHT_KEYS:
            outputs, bias, weights = (layer.number(key) for key in WEIGHT_KEYS[layer.kind])
            if int.from_bytes(data[at : at + 4], "little") != FLOAT32_TAG:
                raise SystemExit(f"weights of {layer.fields[1]} are not float32")
            size = 4 + 4 * weights + (4 * outputs if bias else 0)
        elif layer.kind == "MemoryData":
            size = 4 * int(np.prod([max(1, layer.number(key)) for key in (0, 1, 11, 2)]))
        elif layer.kind == "LayerNorm" and layer.number(2, 1):
            size = 8 * layer.number(0)
        yield layer, data[at : at + size]
        at += size
    if at != len(data):
        raise SystemExit(f"the weight file holds {len(data)} bytes, its layers account for {at}")


def load(folder: Path, precision: str, threads: int) -> Session:
    return NcnnSession(folder, precision, threads)


if __name__ == "__main__":
    main(convert, load)
