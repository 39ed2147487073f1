"""Every integer tensor that the library keeps in memory against the float network's: signal to quantization noise.

SQNR = 10 log10(sum x^2 / sum (x - x_hat)^2) in dB over all images: x the float network's tensor, x_hat what the C
library's integers stand for. What a tensor inherits from those before it is in x_hat too; `own` leaves it out: the
float tensor itself rounded and clipped to the tensor's own grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import permutations

import numpy as np
import torch
import tvm

from edgenext_tvm.accuracy.network_inputs import library_input
from edgenext_tvm.accuracy.open_model import MeasuredModel
from edgenext_tvm.accuracy.step_dump import StepDump, step_dump
from edgenext_tvm.codegen.program import Program, Step
from edgenext_tvm.errors import UserError
from edgenext_tvm.kernels.base import kernel_of
from edgenext_tvm.kernels.wide import QRANGE
from edgenext_tvm.passes.track_tensors import tensor_parameters, tracked
from edgenext_tvm.quantize.images import ImageSet
from edgenext_tvm.quantize.sensitivity import SwitchedNetwork
from edgenext_tvm.verify.compare import same_bits
from edgenext_tvm.verify.device import run_logits
from edgenext_tvm.verify.golden import image_input
from edgenext_tvm.verify.quantization import input_quantization
from edgenext_tvm.verify.runner import Runner, choose_runner

LOGITS = "logits"
# The layer of what the network itself does between its modules.
TOP_LEVEL = "top level"
# All tensors of a batch are in memory at once, twice: 60 MiB an image for the largest variant.
BATCH = 4


@dataclass(frozen=True)
class TensorNoise:
    """One tensor. key: the recipe's; layer: PyTorch module; kernel: what computes it; scale, zero_point, dtype: how its
    integers are read. sqnr_db, own_db: see the module, infinite without noise; clipped: share of the float values
    that lie outside of the range.
    """

    key: str
    layer: str
    kernel: str
    dtype: str
    scale: float
    zero_point: int
    sqnr_db: float
    own_db: float
    clipped: float


@dataclass(frozen=True)
class LayerNoise:
    """All tensors in network order; `not_stored` are keys of tensors that only exist inside fused kernels."""

    tensors: tuple[TensorNoise, ...]
    not_stored: tuple[str, ...]
    images: int
    runner: str

    @property
    def worst_first(self) -> list[TensorNoise]:
        return sorted(self.tensors, key=lambda tensor: tensor.sqnr_db)

    @property
    def layers(self) -> dict[str, float]:
        """SQNR in dB by PyTorch module, in network order: that of its worst tensor."""
        found: dict[str, float] = {}
        for tensor in self.tensors:
            found[tensor.layer] = min(found.get(tensor.layer, math.inf), tensor.sqnr_db)
        return found

    def to_dict(self) -> dict[str, object]:
        return {
            "images": self.images,
            "runner": self.runner,
            "tensors": [asdict(t) | {"sqnr_db": finite(t.sqnr_db), "own_db": finite(t.own_db)} for t in self.tensors],
            "layers": {layer: finite(sqnr) for layer, sqnr in self.layers.items()},
            "not_stored": list(self.not_stored),
        }


def finite(decibel: float) -> float | None:
    """For JSON, which has no infinity: None where there is no noise at all."""
    return decibel if math.isfinite(decibel) else None


@dataclass(frozen=True)
class StoredTensor:
    """Where one tensor of the recipe lies. value: of the program; channels: (first, count, of) where its step writes
    only these of the value's last axis.
    """

    number: int
    value: int
    step: int | None
    channels: tuple[int, int, int] | None

    def elements(self, values: np.ndarray) -> np.ndarray:
        """[N, elements] of the value's [N, ...]."""
        if self.channels is None:
            return values.reshape(len(values), -1)
        first, count, of = self.channels
        return values.reshape(len(values), -1, of)[:, :, first : first + count].reshape(len(values), -1)


class _Sums:
    """Energies of one tensor, over all batches. layout: order of the float tensor's axes in memory, found at first."""

    def __init__(self) -> None:
        self.signal = self.noise = self.own = 0.0
        self.clipped = self.count = 0
        self.layout: tuple[int, ...] | None = None

    def add(self, x: np.ndarray, q: np.ndarray, scale: float, zero_point: int, dtype: str) -> None:
        """x: the float tensor [N,...]; q: the stored elements [N,n]."""
        found = scale * (q.astype(np.float64) - zero_point)
        if self.layout is None:
            self.layout = _layout(x, found)
        wanted = np.transpose(x, self.layout).reshape(len(x), -1).astype(np.float64)
        self.signal += float((wanted**2).sum())
        self.noise += float(((wanted - found) ** 2).sum())
        if dtype == "float32":
            return
        low, high = QRANGE[dtype]
        levels = np.rint(wanted / scale) + zero_point
        rounded = scale * (np.clip(levels, low, high) - zero_point)
        self.own += float(((wanted - rounded) ** 2).sum())
        self.clipped += int(((levels < low) | (levels > high)).sum())
        self.count += q.size

    @staticmethod
    def decibel(signal: float, noise: float) -> float:
        if noise == 0.0:
            return math.inf
        return 10 * math.log10(signal / noise) if signal > 0.0 else -math.inf


def _layout(x: np.ndarray, found: np.ndarray) -> tuple[int, ...]:
    """The order of the axes of `x`, [N,...], in which its elements come closest to `found`, [N,n]."""
    orders = [(0, *rest) for rest in permutations(range(1, x.ndim))]
    return min(orders, key=lambda order: float(np.abs(np.transpose(x, order).reshape(len(x), -1) - found).sum()))


def _module_of(key: str) -> str:
    module, colon, _ = key.rpartition(":")
    return module or (TOP_LEVEL if colon else key)


def stored_tensors(lowered: tvm.IRModule, program: Program, sizes: Sequence[int]) -> list[StoredTensor]:
    """Where the imported program's quantized tensors lie, in network order. sizes: elements of each, by its number."""
    numbers = tracked(lowered)
    found = [StoredTensor(n, program.input, None, None) for n in numbers.get(program.values[program.input].name, [])]
    for index, step in enumerate(program.steps):
        channels = written_channels(program, step)
        value = program.values[step.results[0]]
        for number in numbers.get(step.name, []):
            if math.prod(value.shape) == sizes[number]:
                found.append(StoredTensor(number, value.id, index, None))
            elif channels and math.prod(value.shape) // channels[2] * channels[1] == sizes[number]:
                found.append(StoredTensor(number, value.id, index, channels))
    return found


def written_channels(program: Program, step: Step) -> tuple[int, int, int] | None:
    """(first, count, of) where a step writes only these of its result's channels; None for kernels that never do."""
    kernel = kernel_of(program.functions[step.function])
    total, first = getattr(kernel, "y_channels", None), getattr(kernel, "y_offset", None)
    return None if total is None or first is None else (first, getattr(kernel, "c"), total)  # noqa: B009


def measure_layers(
    model: MeasuredModel,
    images: ImageSet,
    runner: str | Runner | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> LayerNoise:
    """Runs the images through the float network and, step by step, through the build's kernels where these run.

    UserError for builds without recipe, and where the steps' logits are not those of the build's own program.
    """
    recipe = model.quantized()
    device = runner if isinstance(runner, Runner) else choose_runner(model.build.board, runner)
    parameters = tensor_parameters(model.lowered)
    if not parameters:
        raise UserError(f"{model.build.path} was compiled by an older version: compile the model again")
    network = SwitchedNetwork(model.float_model, recipe, min(BATCH, len(images)))
    say("compiling a program that hands out every step's result")
    with step_dump(model.build, model.lowered) as dump:
        say(f"{len(images)} images, every tensor, on {device.name}")
        measured = _Measured(model, network, dump, device)
        for first in range(0, len(images), BATCH):
            measured.add([images.image(index) for index in range(first, min(first + BATCH, len(images)))])
    return measured.result(len(images), device.name)


class _Measured:
    def __init__(self, model: MeasuredModel, network: SwitchedNetwork, dump: StepDump, device: Runner) -> None:
        self.model, self.network, self.dump, self.device = model, network, dump, device
        self.parameters = tensor_parameters(model.lowered)
        self.keys: list[str] = []
        self.stored: list[StoredTensor] = []
        self.sums: dict[int, _Sums] = {}
        self.logits = _Sums()

    def add(self, pixels: list[np.ndarray]) -> None:
        preprocessing = self.model.preprocessing
        x = torch.stack([library_input(image, preprocessing) for image in pixels])
        tensors, logits = self.network.float_tensors(x)
        inputs = np.concatenate(
            [image_input(image, preprocessing, input_quantization(self.model.lowered)) for image in pixels]
        )
        values = self.dump.run(self.device, inputs)
        values[self.dump.program.input] = inputs
        found = values[self.dump.program.output].reshape(len(pixels), -1)
        if not self.keys:
            self._place(tensors)
            self._check(pixels, found)
        for place in self.stored:
            scale, zero_point, dtype = self.parameters[place.number]
            float_tensor = tensors[self.keys[place.number]].numpy()
            q = place.elements(values[place.value])
            self.sums.setdefault(place.number, _Sums()).add(float_tensor, q, scale, zero_point, dtype)
        self.logits.add(logits.numpy(), found, 1.0, 0, "float32")

    def _place(self, tensors: dict) -> None:
        self.keys = list(tensors)
        recipe = self.model.quantized()
        own = [(recipe.activations[key].scale, recipe.activations[key].zero_point) for key in self.keys]
        if own != [(scale, zero_point) for scale, zero_point, _ in self.parameters]:
            raise UserError(f"{self.model.build.path}: its recipe is not the one it was built with; compile again")
        sizes = [tensor[0].numel() for tensor in tensors.values()]
        places = stored_tensors(self.model.lowered, self.dump.program, sizes)
        # a tensor that is copied keeps its values: the first place says it all
        self.stored = list({place.number: place for place in reversed(places)}.values())[::-1]

    def _check(self, pixels: list[np.ndarray], found: np.ndarray) -> None:
        if not same_bits(run_logits(self.model.build, self.device, pixels), np.ascontiguousarray(found)):
            raise UserError(
                f"{self.model.build.path}: its kernels one by one give other logits than its program on "
                f"{self.device.name}; check it with `edgenext-tvm verify`, and compile the model again"
            )

    def result(self, images: int, runner: str) -> LayerNoise:
        tensors = [self._tensor(place) for place in self.stored]
        last = self.dump.program.steps[-1]
        end = TensorNoise(
            LOGITS, last.layer, last.kind, "float32", 1.0, 0,
            _Sums.decibel(self.logits.signal, self.logits.noise), math.inf, 0.0,
        )  # fmt: skip
        kept = {place.number for place in self.stored}
        not_stored = tuple(key for number, key in enumerate(self.keys) if number not in kept)
        return LayerNoise((*tensors, end), not_stored, images, runner)

    def _tensor(self, place: StoredTensor) -> TensorNoise:
        key, sums = self.keys[place.number], self.sums[place.number]
        scale, zero_point, dtype = self.parameters[place.number]
        step = None if place.step is None else self.dump.program.steps[place.step]
        return TensorNoise(
            key=key,
            layer=_module_of(key),
            kernel=step.kind if step else "preprocessing",
            dtype=dtype,
            scale=scale,
            zero_point=zero_point,
            sqnr_db=_Sums.decibel(sums.signal, sums.noise),
            own_db=_Sums.decibel(sums.signal, sums.own),
            clipped=sums.clipped / sums.count,
        )
