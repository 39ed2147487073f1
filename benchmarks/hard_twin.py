"""Prints what int8 costs on a model whose channels differ wildly in range: float, plain int8, int8 with our rewrites.

    python benchmarks/hard_twin.py --calibration cifar10_train.npz --evaluate cifar10_test.npz --library-limit 10000

The twin has the bundled model's float outputs (edgenext_tvm/quantize/hard_twin.py says how it is made). With
--library-limit N the twin is also compiled for this machine, and its C library runs N images.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

from edgenext_tvm.model.edgenext import EdgeNeXt
from edgenext_tvm.quantize import ImageSet, QuantizedProgram, open_images, quantize_model
from edgenext_tvm.quantize.accuracy import compare
from edgenext_tvm.quantize.hard_twin import make_hard_twin, quantize_plain
from edgenext_tvm.source import load_float_model

BUNDLED = "edgenext_xx_small"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calibration", required=True, help="images to calibrate on: folder or .npz")
    parser.add_argument("--evaluate", required=True, help="images with labels: folder or .npz")
    parser.add_argument("--calibration-images", type=int, default=64)
    parser.add_argument("--limit", type=int, default=500, help="images to evaluate on")
    parser.add_argument("--seed", type=int, default=0, help="of the twin's factors")
    parser.add_argument("--library-limit", type=int, default=0, help="images for the C library; 0: do not build it")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    source = load_float_model(BUNDLED, None, None, None)
    model, preprocessing = source.model, source.preprocessing
    twin = make_hard_twin(model, arguments.seed)
    calibration = open_images(arguments.calibration, arguments.calibration_images)
    images = open_images(arguments.evaluate, arguments.limit)
    print(f"{'':32} {'top-1':>8} {'same class':>11} {'logits dB':>10}   ({len(images)} images)")
    for label, network in (("the model as trained", model), ("its hard twin", twin)):
        plain = quantize_plain(network, calibration, preprocessing, quiet=True)
        ours = quantize_model(network, calibration, preprocessing, quiet=True)
        print_rows(label, network, {"plain int8": plain, "int8": ours}, images)
    if arguments.library_limit:
        print_library(ours, twin, arguments.evaluate, arguments.library_limit)


def print_rows(label: str, model: EdgeNeXt, programs: dict[str, QuantizedProgram], images: ImageSet) -> None:
    """One line for float and one for each program."""
    for row, (name, program) in enumerate(programs.items()):
        found = compare(program, model, images, quiet=True)
        if row == 0:
            print(f"{label + ', float32':32} {found.float_top1:8.2%} {'':>11} {'':>10}")
        print(
            f"{label + ', ' + name:32} {found.quantized_top1:8.2%} {found.agreement:11.2%} "
            f"{found.signal_to_noise_db:10.1f}",
            flush=True,
        )


def print_library(program: QuantizedProgram, twin: EdgeNeXt, source: str, limit: int) -> None:
    """Compiles the twin with the program's recipe and runs the C library."""
    from edgenext_tvm.api import compile_model, verify_build

    with tempfile.TemporaryDirectory() as folder:
        checkpoint, recipe = Path(folder) / "twin.safetensors", Path(folder) / "recipe.json"
        save_file(twin.state_dict(), str(checkpoint), metadata={"input_size": str(twin.input_size)})
        program.recipe.save(recipe)
        built = compile_model(BUNDLED, "host", checkpoint=checkpoint, recipe=recipe, out=Path(folder) / "build")
        report = verify_build(built.build_dir, source, limit=limit)
    print(f"C library, {report.images} images: top-1 {report.top1_int8:.2%}, float {report.top1_float:.2%}, "
          f"same class {report.top1_agreement:.2%}, relative L2 of logits {report.relative_l2:.4f}")  # fmt: skip


if __name__ == "__main__":
    main()
