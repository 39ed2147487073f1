"""Writes trained weights as a checkpoint: half precision, with all that compile needs to know about them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from edgenext_tvm.errors import UserError
from edgenext_tvm.quantize.preprocess import IMAGENET_MEAN, IMAGENET_STD

SUFFIX = ".safetensors"
HALF = torch.finfo(torch.float16)


def check_out(out: str | Path) -> Path:
    """`out` as a path that a checkpoint can be written to, else UserError."""
    out = Path(out)
    if out.suffix != SUFFIX:
        raise UserError(f"output {out} must end in {SUFFIX}; try {out.with_suffix(SUFFIX)}")
    if not out.parent.is_dir():
        raise UserError(f"cannot write {out}: folder {out.parent} does not exist; create it first")
    if out.exists():
        raise UserError(f"{out} already exists; give another --out, or delete it")
    return out


def as_stored(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights as the file holds them: on the CPU, contiguous, float16 but for tensors out of its normal range."""
    return {name: _stored(value.detach().cpu()).contiguous() for name, value in weights.items()}


def _stored(value: Tensor) -> Tensor:
    if not value.is_floating_point():
        return value
    peak = float(value.abs().max()) if value.numel() else 0.0
    fits = peak == 0.0 or HALF.tiny <= peak <= HALF.max
    return value.half() if fits else value.float()


def write_checkpoint(
    out: Path, stored: Mapping[str, Tensor], variant: str, classes: tuple[str, ...], input_size: int, trained_on: str
) -> None:
    """Writes what `as_stored` gave to `out`, whole or not at all."""
    metadata = {
        "model": variant,
        "num_classes": str(len(classes)),
        "input_size": str(input_size),
        "mean": json.dumps(IMAGENET_MEAN),
        "std": json.dumps(IMAGENET_STD),
        "resize": "bilinear",
        "classes": json.dumps(classes),
        "trained_on": trained_on,
    }
    partial = out.with_name(out.name + ".partial")
    try:
        partial.write_bytes(_in_fixed_order(save(dict(stored), metadata)))
        partial.replace(out)
    except OSError as error:
        raise UserError(f"cannot write {out} ({error}); give --out in a writable folder with space") from error
    finally:
        partial.unlink(missing_ok=True)


def _in_fixed_order(content: bytes) -> bytes:
    # safetensors writes metadata in an order that changes from process to process: equal weights, other bytes
    length = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[8 + length :]
