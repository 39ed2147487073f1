"""Proves a build: its logits against float, against QDQ, against the NumPy twins and against the host's build."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgenext_tvm.codegen.meta import input_table_float
from edgenext_tvm.errors import UserError
from edgenext_tvm.quantize.images import ImageSet, open_images
from edgenext_tvm.quantize.preprocess import Preprocessing
from edgenext_tvm.verify.build_folder import LOWERED_FILE, BuildFolder, open_build
from edgenext_tvm.verify.compare import accuracy, compare_logits, same_bits
from edgenext_tvm.verify.device import run_logits, selftest
from edgenext_tvm.verify.float_model import FLOAT_WEIGHTS, float_logits, input_size, qdq_logits
from edgenext_tvm.verify.golden import image_input
from edgenext_tvm.verify.host_build import build_for_host
from edgenext_tvm.verify.quantization import input_quantization
from edgenext_tvm.verify.reference import NoTwinError, ReferenceProgram, load_lowered
from edgenext_tvm.verify.runner import HostRunner, Runner, choose_runner

DEFAULT_IMAGES = "synthetic:8"
# the twins are naive: 0.2 s an image for XXS at 128 pixels, many times that for larger models
DEFAULT_REFERENCE_IMAGES = 4
FLOAT_BATCH = 32
# PyTorch simulates quantization at 0.1 s an image; the error is known long before that
MAX_QDQ_IMAGES = 64

Progress = Callable[[str], None]


@dataclass(frozen=True)
class VerifyReport:
    """What `verify` found. The measures (see compare.Agreement) are of the build's logits against `compared_with`.

    top1_float, top1_int8: share of correct labels, None without labels. bit_identical_*: None where it cannot be asked,
    with the reason in `notes`. relative_l2_to_qdq: of at most MAX_QDQ_IMAGES
    images against the quantized program in PyTorch, None for float32 builds.
    """

    build_dir: str
    board: str
    runner: str
    image_source: str
    images: int
    compared_with: str
    relative_l2: float
    cosine: float
    max_abs_error: float
    top1_agreement: float
    top5_agreement: float
    top1_float: float | None
    top1_int8: float | None
    relative_l2_to_qdq: float | None
    selftest: bool
    bit_identical_to_host: bool | None
    bit_identical_to_reference: bool | None
    reference_images: int
    notes: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """False when the build does not do what was compiled; accuracy is not judged."""
        return (
            self.selftest and self.bit_identical_to_host is not False and self.bit_identical_to_reference is not False
        )

    def to_dict(self) -> dict[str, object]:
        return {**dataclasses.asdict(self), "notes": list(self.notes), "passed": self.passed}


def verify(
    build_dir: str | Path,
    images: str | Path | None = None,
    runner: str | Runner | None = None,
    limit: int | None = None,
    reference_images: int = DEFAULT_REFERENCE_IMAGES,
    progress: Progress | None = None,
) -> VerifyReport:
    """Runs the build on `images` (open_images' sources; default: made-up ones) and compares.

    runner: "host", "qemu", "ssh://user@host[:port]", a Runner, or None for the board's own.
    """
    say = progress or (lambda line: None)
    build = open_build(build_dir)
    device = runner if isinstance(runner, Runner) else choose_runner(build.board, runner)
    source = open_images(images or DEFAULT_IMAGES, limit=limit)
    known = known_labels(source, build.manifest.num_classes)
    notes: list[str] = []
    if images is None:
        notes.append(f"{DEFAULT_IMAGES} are made-up images: the measures say little about accuracy")
    lowered = load_lowered(build.path / LOWERED_FILE)
    quantization = input_quantization(lowered)
    preprocessing = build.manifest.load_preprocessing()
    pixels = [source.image(index) for index in range(len(source))]
    # without preprocessing in the library, the network's input is given instead of the image
    normalise = preprocessing or Preprocessing(resize_size=input_size(build), crop_size=input_size(build))
    given = pixels
    if preprocessing is None:
        given = [image_input(image, normalise, quantization) for image in pixels]

    say(f"selftest on {device.name}")
    passed = selftest(build, device)
    say(f"{len(pixels)} images on {device.name}")
    logits = run_logits(build, device, given)
    say("the same images in float")
    to_float, compared_with = float_logits(build)
    table = input_table_float(normalise)

    def real(image: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(table[np.arange(3), normalise.pixels(image)][None])

    batch = FLOAT_BATCH if compared_with == FLOAT_WEIGHTS else 1
    batches = [pixels[first : first + batch] for first in range(0, len(pixels), batch)]
    expected = np.concatenate(
        [to_float(np.concatenate([real(image) for image in images_of_batch])) for images_of_batch in batches]
    )
    agreement = compare_logits(logits, expected)
    to_qdq = qdq_logits(build)
    qdq_error = None
    if to_qdq is not None:
        say(f"{len(pixels[:MAX_QDQ_IMAGES])} of the images in the QDQ program")
        simulated = np.concatenate([to_qdq(real(image)) for image in pixels[:MAX_QDQ_IMAGES]])
        qdq_error = compare_logits(logits[:MAX_QDQ_IMAGES], simulated).relative_l2
    count = min(reference_images, len(pixels))
    say(f"{count} of the images in the NumPy twins")
    inputs = [image_input(image, normalise, quantization) for image in pixels[:count]]
    to_reference = _same_as_reference(lowered, inputs, logits[:count], quantization, notes)
    to_host = _same_as_host(build, device, given, logits, lowered, notes, say)
    return VerifyReport(
        build_dir=str(build.path),
        board=build.board.name,
        runner=device.name,
        image_source=source.name,
        images=len(pixels),
        compared_with=compared_with,
        **dataclasses.asdict(agreement),
        top1_float=None if known is None else accuracy(expected, known),
        top1_int8=None if known is None else accuracy(logits, known),
        relative_l2_to_qdq=qdq_error,
        selftest=passed,
        bit_identical_to_host=to_host,
        bit_identical_to_reference=to_reference,
        reference_images=count if to_reference is not None else 0,
        notes=tuple(notes),
    )


def known_labels(source: ImageSet, num_classes: int) -> np.ndarray | None:
    """int64 [B], or None where an image has no label. Raises UserError for labels that the model has no class for."""
    labels = [source.label(index) for index in range(len(source))]
    if None in labels:
        return None
    known = np.asarray(labels)
    if known.max() >= num_classes:
        raise UserError(
            f"{source.name} has labels up to {known.max()}, but the model has {num_classes} classes; "
            "give images of the classes that the model was trained on"
        )
    return known


def _same_as_reference(
    lowered: object, inputs: list[np.ndarray], logits: np.ndarray, quantization: object, notes: list[str]
) -> bool | None:
    if quantization is None:
        notes.append("float32 sums depend on their order: there is no bit-exact reference for this build")
        return None
    try:
        reference = ReferenceProgram(lowered)
    except NoTwinError as error:
        notes.append(str(error))
        return None
    return same_bits(np.concatenate([reference(x) for x in inputs]), logits)


def _same_as_host(
    build: BuildFolder,
    device: Runner,
    given: list[np.ndarray],
    logits: np.ndarray,
    lowered: object,
    notes: list[str],
    say: Progress,
) -> bool | None:
    """Compares with a build for this machine; a build for this machine is compared with itself on two threads."""
    if build.board.is_host and isinstance(device, HostRunner):
        say("the same images on two threads")
        notes.append("this is the host's build: compared with itself on two threads")
        return same_bits(run_logits(build, device, given, threads=2), logits)
    if build.manifest.precision == "float32":
        notes.append("float32 sums depend on vector widths: not compared with the host's build")
        return None
    say("the same images in a build for this machine")
    with tempfile.TemporaryDirectory(prefix="edgenext-tvm-host-") as folder:
        on_host = build_for_host(build, lowered, Path(folder) / "build")
        return same_bits(run_logits(on_host, HostRunner(), given), logits)
