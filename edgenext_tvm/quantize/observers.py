"""Observers: they watch float tensors during calibration and choose int8 parameters for them.

`real = scale * (q - zero_point)`. Activations use [-128, 127] per tensor, asymmetric, or as int16 the same range
with every step cut into 16; weights use [-127, 127] per output channel, symmetric. Real zero is always exactly
representable, so that zero padding and ReLU are exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from torchao.quantization.pt2e.observer import ObserverBase

from edgenext_tvm.errors import UserError

Dtype = Literal["int8", "int16"]
QMIN, QMAX = -128, 127
# An int16 tensor cuts every step of int8 into so many: its values keep to 12 bits (kernels/wide.py tells why).
INT16_STEPS = 16
# How much of what was seen an int16 range adds at either end: a value beyond it costs more than a coarser step.
INT16_MARGIN = 0.05
LEVELS: dict[Dtype, tuple[int, int]] = {
    "int8": (QMIN, QMAX),
    "int16": (QMIN * INT16_STEPS, (QMAX + 1) * INT16_STEPS - 1),
}
WEIGHT_QMAX = 127
# Far below any useful step, and far enough from zero that products and quotients of scales stay normal
# float32 numbers. All-zero tensors get it.
MIN_SCALE = 2.0**-23

Method = Literal["mse", "minmax", "percentile", "auto"]


@dataclass(frozen=True)
class ObserverSettings:
    """How ranges are chosen from what calibration saw.

    method: `minmax` covers everything seen; `percentile` drops the rarest values at either end; `mse` clips
        where the mean rounding error plus clipping error is smallest; `auto` takes for each tensor the one of
        these that disturbs the logits least (score_ranges.py).
    percentile: share of the values kept by `percentile`, in percent.
    mse_power: exponent of the error that `mse` minimises; larger values clip less.
    through_activation: measure a tensor that only feeds GELU, Hardswish or ReLU by the error after that
        function.
    bins: histogram bins per tensor, a power of two.
    samples_per_tensor: at most so many values per tensor and batch enter the histogram (min and max see
        them all).
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    method: Method = "mse"
    percentile: float = 99.99
    mse_power: float = 2.0
    through_activation: bool = True
    bins: int = 8192
    samples_per_tensor: int = 1 << 18

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise UserError(f"observer method {self.method!r} is unknown; allowed: {', '.join(get_args(Method))}")
        if not 50.0 < self.percentile <= 100.0:
            raise UserError(f"observer percentile is {self.percentile}; allowed: above 50, up to 100 (try 99.99)")
        if self.bins < 512 or self.bins & (self.bins - 1):
            raise UserError(f"observer bins is {self.bins}; allowed: a power of two from 512 (try 8192)")
        if not 1.0 <= self.mse_power <= 8.0:
            raise UserError(f"observer mse_power is {self.mse_power}; allowed: 1 to 8 (try 2)")
        if self.samples_per_tensor < 1:
            raise UserError(f"observer samples_per_tensor is {self.samples_per_tensor}; allowed: 1 or more")


def _gelu(x: np.ndarray) -> np.ndarray:
    return torch.nn.functional.gelu(torch.from_numpy(x)).numpy()


ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "gelu": _gelu,
    "hardswish": lambda x: x * np.clip(x + 3.0, 0.0, 6.0) / 6.0,
    "relu": lambda x: np.maximum(x, 0.0),
}


def _fair_stride(count: int, max_samples: int) -> int:
    """The least stride that leaves at most `max_samples` of `count` values and shares no factor with `count`.

    So it shares none with the number of channels either: with one it would see the same few channels of every pixel.
    """
    stride = -(-count // max_samples)
    while math.gcd(stride, count) > 1:
        stride += 1
    return stride


def qparams_from_range(low: float, high: float) -> tuple[float, int]:
    """(scale, zero_point) whose int8 grid covers [min(low, 0), max(high, 0)] and contains real zero.

    scale is a float32 value of at least MIN_SCALE; a range without extent gives (MIN_SCALE, 0).
    """
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32((high - low) / (QMAX - QMIN)))
    if scale < MIN_SCALE:
        return MIN_SCALE, 0
    zero_point = QMIN - round(low / scale)
    return scale, max(QMIN, min(QMAX, zero_point))


class Histogram:
    """Counts of the values seen, in bins symmetric about zero; the range doubles when a value falls outside.

    Doubling merges neighbouring bins exactly, so the counts do not depend on the order of the batches (up
    to the first range).
    """

    def __init__(self, bins: int) -> None:
        self.bins = bins
        self.limit = 0.0  # bins cover [-limit, limit)
        self.counts = np.zeros(bins, dtype=np.int64)
        self.low = math.inf
        self.high = -math.inf

    def add(self, values: torch.Tensor, max_samples: int) -> None:
        """Counts `values` (any shape, float32), or an evenly spaced part of them; min and max always see
        all.
        """
        low, high = (float(bound) for bound in torch.aminmax(values))
        self.low, self.high = min(self.low, low), max(self.high, high)
        peak = max(abs(low), abs(high))
        if peak == 0.0:
            self.counts[self.bins // 2] += values.numel()
            return
        if self.limit == 0.0:
            self.limit = 2.0 ** math.ceil(math.log2(max(peak, 2.0**-100)) + 1e-9)
        while peak >= self.limit:
            self._double()
        flat = values.reshape(-1)
        stride = _fair_stride(flat.numel(), max_samples)
        counts = torch.histc(flat[::stride].float(), self.bins, -self.limit, self.limit)
        self.counts += counts.to(torch.int64).numpy()

    def _double(self) -> None:
        merged = self.counts.reshape(-1, 2).sum(axis=1)
        self.counts = np.zeros(self.bins, dtype=np.int64)
        quarter = self.bins // 4
        self.counts[quarter : 3 * quarter] = merged
        self.limit *= 2.0

    def centres(self) -> np.ndarray:
        """Middle of every bin, float64[bins]."""
        width = 2.0 * self.limit / self.bins
        return (np.arange(self.bins) + 0.5) * width - self.limit


def percentile_range(histogram: Histogram, percentile: float) -> tuple[float, float]:
    """Range that keeps `percentile` percent of the values, the rest dropped evenly from both ends."""
    total = histogram.counts.sum()
    tail = (1.0 - percentile / 100.0) / 2.0
    cumulative = np.cumsum(histogram.counts) / total
    centres = histogram.centres()
    first = int(np.searchsorted(cumulative, tail, side="right"))
    last = int(np.searchsorted(cumulative, 1.0 - tail, side="left"))
    low, high = centres[min(first, histogram.bins - 1)], centres[min(last, histogram.bins - 1)]
    return max(float(low), histogram.low), min(float(high), histogram.high)


def mse_range(histogram: Histogram, power: float, activation: str | None) -> tuple[float, float]:
    """Range with the least mean |f(x) - f(quantized x)|^power, f the activation that follows or the identity.

    Searches both ends separately: a coarse grid of fractions of the range seen, then a fine one around its
    best point.
    """
    used = np.flatnonzero(histogram.counts)
    x = np.clip(histogram.centres()[used], histogram.low, histogram.high)
    weight = histogram.counts[used] / histogram.counts.sum()
    function = ACTIVATIONS[activation] if activation else (lambda values: values)
    wanted = function(x)
    low_seen, high_seen = min(histogram.low, 0.0), max(histogram.high, 0.0)

    def error(low_fraction: float, high_fraction: float) -> float:
        scale, zero_point = qparams_from_range(low_seen * low_fraction, high_seen * high_fraction)
        q = np.clip(np.rint(x / scale) + zero_point, QMIN, QMAX)
        return float(np.sum(weight * np.abs(wanted - function((q - zero_point) * scale)) ** power))

    best = (error(1.0, 1.0), 1.0, 1.0)
    for step, radius in ((0.08, 12), (0.02, 4), (0.005, 4)):
        _, low_centre, high_centre = best
        lows = _fractions(low_centre, step, radius) if low_seen < 0.0 else [1.0]
        highs = _fractions(high_centre, step, radius) if high_seen > 0.0 else [1.0]
        best = min([best] + [(error(low, high), low, high) for low in lows for high in highs])
    return low_seen * best[1], high_seen * best[2]


def _fractions(centre: float, step: float, radius: int) -> list[float]:
    return [f for k in range(-radius, radius + 1) if 0.0 < (f := centre + k * step) <= 1.0]


class ActivationObserver(ObserverBase):
    """Per-tensor parameters, either chosen from what was seen or fixed by `freeze`.

    `keys` lists the stable names of all tensors that share this observer. An int16 tensor covers all that was
    seen: with 4096 levels nothing is won by clipping.
    """

    def __init__(
        self, settings: ObserverSettings, activation: str | None = None, width: Dtype = "int8", **_spec: Any
    ) -> None:
        super().__init__(dtype=getattr(torch, width), is_dynamic=False)
        self.qscheme = torch.per_tensor_affine
        self.width = width
        self.quant_min, self.quant_max = LEVELS[width]
        self.settings = settings
        self.activation = activation if settings.through_activation else None
        self.histogram = Histogram(settings.bins)
        self.keys: list[str] = []
        self.fixed: tuple[float, int] | None = None
        self.method: str | None = None
        self.instead: Callable[[torch.Tensor], torch.Tensor] | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns `x` itself, or what `instead` makes of it. Fails with `UserError` when it holds NaN or infinity."""
        if self.instead is not None:
            return self.instead(x)
        if self.fixed is None:
            values = x.detach()
            if not bool(torch.isfinite(values).all()):
                raise UserError(
                    f"calibration saw NaN or infinity in tensor {self.keys[0] if self.keys else '?'}; "
                    "the float model must be finite on the calibration images (check the checkpoint and "
                    "the preprocessing)"
                )
            self.histogram.add(values, self.settings.samples_per_tensor)
        return x

    def quantized(self, x: torch.Tensor, params: tuple[float, int] | None = None) -> torch.Tensor:
        """The nearest values of the tensor's grid, or of that of `params`: float32, `x`'s shape."""
        scale, zero_point = params or self.qparams()
        return torch.fake_quantize_per_tensor_affine(x, scale, zero_point, self.quant_min, self.quant_max)

    def freeze(self, scale: float, zero_point: int) -> None:
        """Uses these parameters from now on, whatever is seen."""
        self.fixed = (scale, zero_point)

    def qparams(self) -> tuple[float, int]:
        """(scale, zero_point). Fails with `UserError` when nothing was seen and nothing is fixed."""
        if self.fixed is None:
            # what "auto" starts from, and all it has where no image is left to compare on
            self.method = "mse" if self.settings.method == "auto" else self.settings.method
            self.fixed = self.choose(self.method)
        return self.fixed

    def choose(
        self,
        method: str,
        percentile: float | None = None,
        mse_power: float | None = None,
        through_activation: bool = True,
    ) -> tuple[float, int]:
        """(scale, zero_point) that `method` takes from what was seen; what is not given is as in the settings."""
        if not math.isfinite(self.histogram.low):
            raise UserError(
                f"tensor {self.keys[0] if self.keys else '?'} was never calibrated; run at least one calibration image"
            )
        low, high = self.histogram.low, self.histogram.high
        if self.width == "int16":
            scale, zero_point = qparams_from_range(low * (1 + INT16_MARGIN), high * (1 + INT16_MARGIN))
            return scale / INT16_STEPS, zero_point * INT16_STEPS
        if self.histogram.limit > 0.0 and method == "percentile":
            low, high = percentile_range(self.histogram, percentile or self.settings.percentile)
        if self.histogram.limit > 0.0 and method == "mse":
            activation = self.activation if through_activation else None
            low, high = mse_range(self.histogram, mse_power or self.settings.mse_power, activation)
        return qparams_from_range(low, high)

    def calculate_qparams(self, **_kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        scale, zero_point = self.qparams()
        return torch.tensor([scale], dtype=torch.float64), torch.tensor([zero_point], dtype=torch.int64)


class PerChannelWeightObserver(ObserverBase):
    """Symmetric int8 scale per output channel, max|w| / 127; a channel of zeros gets MIN_SCALE. Weight
    layout [C_OUT, ...].
    """

    def __init__(self, ch_axis: int = 0, **_spec: Any) -> None:
        super().__init__(dtype=torch.int8, is_dynamic=False)
        self.qscheme = torch.per_channel_symmetric
        self.ch_axis = ch_axis
        self.quant_min, self.quant_max = -WEIGHT_QMAX, WEIGHT_QMAX
        self.peak: torch.Tensor | None = None
        self.instead: Callable[[torch.Tensor], torch.Tensor] | None = None

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Returns `weight` itself, or what `instead` makes of it."""
        if self.instead is not None:
            return self.instead(weight)
        axes = [axis for axis in range(weight.dim()) if axis != self.ch_axis]
        self.peak = weight.detach().abs().amax(dim=axes)
        return weight

    def calculate_qparams(self, **_kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        assert self.peak is not None, "weights are constants: one run of the graph always shows them"
        scale = (self.peak / WEIGHT_QMAX).clamp(min=MIN_SCALE).to(torch.float32)
        return scale, torch.zeros_like(scale, dtype=torch.int64)
