"""ExecuTorch with its XNNPACK backend: float32, and static int8 by its own quantizer (weights per channel)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from executorch.extension.pybindings import portable_lib

from benchmarks.peers.workers.protocol import Session, main

MODEL = "model.pte"


class ExecuTorchSession(Session):
    """The method `forward` with a thread pool of exactly `threads`."""

    def __init__(self, folder: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        portable_lib._unsafe_reset_threadpool(threads)
        if portable_lib._threadpool_get_thread_count() != threads:
            raise SystemExit(f"ExecuTorch's thread pool cannot be set to {threads}")
        self.module = portable_lib._load_for_executorch(str(folder / MODEL))

    def set_input(self, image: np.ndarray) -> None:
        self.inputs = (torch.from_numpy(np.ascontiguousarray(image)),)

    def run(self) -> None:
        (self.output,) = self.module.forward(self.inputs)

    def logits(self) -> np.ndarray:
        return self.output.numpy()[0]


def convert(case: Path, out: Path, precision: str) -> None:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    from benchmarks.peers.workers.network import INPUT_SHAPE, PointwiseNetwork, load_network

    network = PointwiseNetwork(load_network(case)).eval()
    example = (torch.zeros(INPUT_SHAPE),)
    if precision == "int8":
        network = _quantize(network, example, np.load(case / "calibration.npy"))
    edge = to_edge_transform_and_lower(torch.export.export(network, example), partitioner=[XnnpackPartitioner()])
    (out / MODEL).write_bytes(edge.to_executorch().buffer)


def _quantize(network: torch.nn.Module, example: tuple[torch.Tensor, ...], images: np.ndarray) -> torch.nn.Module:
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    prepared = prepare_pt2e(torch.export.export(network, example).module(), quantizer)
    with torch.inference_mode():
        for image in images:
            prepared(torch.from_numpy(image[None]))
    return convert_pt2e(prepared)


def load(folder: Path, precision: str, threads: int) -> Session:
    return ExecuTorchSession(folder, threads)


if __name__ == "__main__":
    main(convert, load)
