"""Prints how int8's error depends on the number of calibration images, and on how ranges are chosen.

    python benchmarks/calibration_images.py --calibration cifar10_train.npz --evaluate cifar10_test.npz

One line for each number and method: relative L2 error of the logits to float32, images whose first class stays, top-1.
"""

from __future__ import annotations

import argparse
import time

import torch

from edgenext_tvm.quantize import ObserverSettings, open_images, quantize_model
from edgenext_tvm.quantize.calibrate import image_batches
from edgenext_tvm.quantize.shape_weights import Steps
from edgenext_tvm.source import load_float_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="edgenext_xx_small")
    parser.add_argument("--checkpoint", help="default: the bundled one")
    parser.add_argument("--input-size", type=int)
    parser.add_argument("--calibration", required=True, help="images to calibrate on: folder or .npz")
    parser.add_argument("--evaluate", required=True, help="other images: folder or .npz")
    parser.add_argument("--evaluate-images", type=int, default=500)
    parser.add_argument("--counts", type=int, nargs="+", default=[16, 64, 128, 256, 512])
    parser.add_argument("--methods", nargs="+", default=["mse", "minmax", "auto"])
    parser.add_argument("--seed", type=int, default=0, help="chooses the calibration images")
    parser.add_argument("--nearest", action="store_true", help="round weights to nearest: shows activations alone")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    source = load_float_model(arguments.model, arguments.checkpoint, None, arguments.input_size)
    images = open_images(arguments.evaluate, arguments.evaluate_images)
    steps = Steps(rounding_budget_min=0, bias_correction=False) if arguments.nearest else Steps()
    with torch.no_grad():
        wanted = torch.cat([source.model(x) for x in image_batches(images, source.preprocessing)])
    labels = torch.tensor([-1 if (label := images.label(i)) is None else label for i in range(len(images))])
    print(f"{len(images)} images of {images.name}; float32 top-1 {share(wanted, labels):.2%}")
    print(f"{'images':>6} {'method':>10} {'relative L2':>12} {'same class':>11} {'top-1':>8} {'seconds':>8}")
    for method in arguments.methods:
        for count in arguments.counts:
            calibration = open_images(arguments.calibration, count, arguments.seed)
            start = time.perf_counter()
            settings = ObserverSettings(method=method)
            program = quantize_model(source.model, calibration, source.preprocessing, settings, quiet=True, steps=steps)
            seconds = time.perf_counter() - start
            found = torch.cat([program(x) for x in image_batches(images, source.preprocessing)])
            error = float((found - wanted).norm() / wanted.norm())
            same = share(found, wanted.argmax(1))
            print(
                f"{len(calibration):6} {method:>10} {error:12.4f} {same:11.2%} {share(found, labels):8.2%} "
                f"{seconds:8.1f}",
                flush=True,
            )


def share(logits: torch.Tensor, classes: torch.Tensor) -> float:
    """Of the images, those whose first class is the given one."""
    return float((logits.argmax(1) == classes).float().mean())


if __name__ == "__main__":
    main()
