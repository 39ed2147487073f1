"""What all engines are given: the same weights, the same calibration images, and the float model's answers."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch

from benchmarks.peers.environments import peers_cache
from edgenext_tvm.quantize.images import open_images
from edgenext_tvm.source import load_float_model

INPUT_SIZE = 256
CHECKPOINT = "random"
CALIBRATION = "synthetic:16"
# beyond the calibration images: synthetic image i depends on i alone
PROBES = slice(16, 20)


def prepare_case(variant: str) -> Path:
    """A folder with model.pt (variant and weights), calibration.npy and probe.npy (float32 [N,3,256,256]),
    probe_images.npy (uint8 [N,256,256,3], the same images before preprocessing) and logits.npy (float32 [N,1000]).

    UserError for an unknown variant.
    """
    source = load_float_model(variant, CHECKPOINT, None, INPUT_SIZE)
    weights = source.model.state_dict()
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for name, value in weights.items():
        digest.update(name.encode() + value.numpy().tobytes())
    folder = peers_cache() / "cases" / f"{variant}-{digest.hexdigest()[:12]}"
    if (folder / "logits.npy").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    images = open_images(f"synthetic:{PROBES.stop}")
    pixels = [images.image(i) for i in range(len(images))]
    inputs = np.stack([source.preprocessing(image) for image in pixels])
    with torch.inference_mode():
        logits = source.model(torch.from_numpy(inputs[PROBES])).numpy()
    torch.save({"variant": variant, "weights": weights}, folder / "model.pt")
    np.save(folder / "calibration.npy", inputs[: PROBES.start])
    np.save(folder / "probe.npy", inputs[PROBES])
    np.save(folder / "probe_images.npy", np.stack(pixels[PROBES]))
    # last: its presence says that the rest is complete
    np.save(folder / "logits.npy", logits)
    return folder
