"""How int8 parameters are chosen from what calibration saw."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgenext_tvm.errors import UserError
from edgenext_tvm.quantize.observers import (
    MIN_SCALE,
    QMAX,
    QMIN,
    ActivationObserver,
    Histogram,
    ObserverSettings,
    PerChannelWeightObserver,
    qparams_from_range,
)

reals = st.floats(-1e30, 1e30, allow_nan=False)


@given(reals, reals)
def test_every_range_gives_a_valid_scale_that_covers_it(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    scale, zero_point = qparams_from_range(low, high)
    assert MIN_SCALE <= scale < math.inf
    assert scale == np.float32(scale)
    assert QMIN <= zero_point <= QMAX
    # Half a step is lost at either end by rounding the zero point; a range narrower than MIN_SCALE's grid is one step.
    slack = 0.5001 * scale if scale > MIN_SCALE else 128 * MIN_SCALE
    assert (QMIN - zero_point) * scale <= min(low, 0.0) + slack
    assert (QMAX - zero_point) * scale >= max(high, 0.0) - slack


def observer(*batches: torch.Tensor, activation: str | None = None, **settings) -> ActivationObserver:
    made = ActivationObserver(ObserverSettings(**settings), activation)
    made.keys.append("block:add")
    for batch in batches:
        assert made(batch) is batch
    return made


def quantize(x: torch.Tensor, scale: float, zero_point: int) -> torch.Tensor:
    return (torch.clamp(torch.round(x / scale) + zero_point, QMIN, QMAX) - zero_point) * scale


@pytest.mark.parametrize("method", ["mse", "minmax", "percentile"])
@pytest.mark.parametrize("value", [0.0, 1e-30, -1e-12, 5.0, -3.0])
def test_constant_tensors_are_representable(method: str, value: float) -> None:
    scale, zero_point = observer(torch.full((4, 7), value), method=method).qparams()
    assert scale >= MIN_SCALE
    assert QMIN <= zero_point <= QMAX
    assert abs(float(quantize(torch.tensor(value), scale, zero_point)) - value) <= max(0.01 * abs(value), MIN_SCALE)


def test_minmax_covers_everything_seen() -> None:
    made = observer(torch.tensor([-1.0, 0.5]), torch.tensor([4.1]), method="minmax")
    assert made.qparams() == qparams_from_range(-1.0, float(np.float32(4.1)))


def test_percentile_drops_rare_values() -> None:
    x = torch.cat([torch.linspace(-1, 1, 100_000), torch.tensor([50.0])])
    scale, zero_point = observer(x, method="percentile", percentile=99.9).qparams()
    assert (QMAX - zero_point) * scale == pytest.approx(1.0, rel=0.05)
    full_scale, _ = observer(x, method="percentile", percentile=100.0).qparams()
    assert full_scale == pytest.approx(51 / 255, rel=0.01)


def squared_error(x: torch.Tensor, scale: float, zero_point: int) -> float:
    return float(((quantize(x, scale, zero_point) - x) ** 2).mean())


@pytest.mark.parametrize("name", ["laplace", "student", "gelu", "shifted"])
def test_mse_finds_the_best_range(name: str) -> None:
    torch.manual_seed(0)
    x = {
        "laplace": torch.distributions.Laplace(0.0, 1.0).sample((50_000,)),
        "student": torch.distributions.StudentT(3.0).sample((50_000,)),
        "gelu": torch.nn.functional.gelu(torch.randn(50_000) * 2),
        "shifted": torch.randn(50_000) - 2.0,
    }[name]
    low, high = float(x.min()), float(x.max())
    steps = [k / 24 for k in range(1, 25)]
    best = min(squared_error(x, *qparams_from_range(low * a, high * b)) for a in steps for b in steps)
    assert squared_error(x, *observer(x, method="mse").qparams()) <= 1.02 * best


def test_one_outlier_in_a_million_does_not_stretch_the_range() -> None:
    torch.manual_seed(0)
    x = torch.cat([torch.randn(1_000_000), torch.tensor([30.0])])
    mse, minmax = (observer(x, method=method, samples_per_tensor=1 << 21).qparams() for method in ("mse", "minmax"))
    assert mse[0] < 0.75 * minmax[0]
    assert squared_error(x, *mse) < 0.75 * squared_error(x, *minmax)


def test_mse_keeps_the_full_range_of_uniform_values() -> None:
    x = torch.linspace(-2, 2, 100_000)
    scale, _ = observer(x, method="mse").qparams()
    assert scale == pytest.approx(4 / 255, rel=0.02)


def test_tensor_before_gelu_is_clipped_where_gelu_is_flat() -> None:
    torch.manual_seed(0)
    x = torch.randn(100_000) * 4
    through = observer(x, activation="gelu")
    scale, zero_point = through.qparams()
    assert -6.0 < (QMIN - zero_point) * scale < -2.0
    plain_scale, plain_zero_point = observer(x, activation="gelu", through_activation=False).qparams()
    assert (QMIN - plain_zero_point) * plain_scale < -10.0
    assert scale < plain_scale


def test_growing_range_keeps_every_count() -> None:
    torch.manual_seed(0)
    batches = [torch.randn(5000) * 3**k for k in range(5)]
    histogram = Histogram(1024)
    for batch in batches:
        histogram.add(batch, max_samples=1 << 20)
    everything = torch.cat(batches)
    expected = torch.histc(everything, 1024, -histogram.limit, histogram.limit).numpy()
    assert histogram.counts.sum() == len(everything)
    assert np.abs(histogram.counts - expected).sum() <= 4  # values on a bin's edge
    assert (histogram.low, histogram.high) == (float(everything.min()), float(everything.max()))


def test_zeros_before_the_first_range_stay_at_zero() -> None:
    histogram = Histogram(512)
    histogram.add(torch.zeros(7), 100)
    histogram.add(torch.tensor([0.0, 3.0]), 100)
    assert histogram.counts[256] == 8
    assert histogram.counts.sum() == 9


def test_subsampling_still_sees_the_extremes() -> None:
    x = torch.zeros(10_001)
    x[3333] = 9.0
    made = observer(x, method="minmax", samples_per_tensor=10)
    assert made.qparams()[0] == pytest.approx(9 / 255)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_non_finite_values_name_the_tensor(bad: float) -> None:
    with pytest.raises(UserError, match=r"NaN or infinity in tensor block:add; .*check the checkpoint"):
        observer(torch.tensor([1.0, bad]))


def test_uncalibrated_tensor_is_named() -> None:
    with pytest.raises(UserError, match=r"block:add was never calibrated"):
        observer().qparams()


def test_frozen_parameters_win_over_what_is_seen() -> None:
    made = observer()
    made.freeze(0.5, -3)
    made(torch.tensor([math.nan]))
    assert made.qparams() == (0.5, -3)
    scale, zero_point = made.calculate_qparams()
    assert (float(scale), int(zero_point)) == (0.5, -3)


def test_scale_survives_conversion_to_the_graph_exactly() -> None:
    made = observer(torch.tensor([0.1, 0.7]))
    assert float(made.calculate_qparams()[0]) == made.qparams()[0]


def test_weights_are_symmetric_per_output_channel() -> None:
    made = PerChannelWeightObserver(ch_axis=0)
    weight = torch.tensor([[1.0, -2.54], [0.0, 0.0], [1.27, 0.3]])
    assert made(weight) is weight
    scale, zero_point = made.calculate_qparams()
    assert scale.tolist() == pytest.approx([0.02, MIN_SCALE, 0.01])
    assert zero_point.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "best"}, r"method 'best' is unknown; allowed: mse, minmax, percentile"),
        ({"percentile": 50.0}, r"percentile is 50.0; allowed: above 50"),
        ({"bins": 1000}, r"bins is 1000; allowed: a power of two"),
        ({"mse_power": 0.5}, r"mse_power is 0.5; allowed: 1 to 8"),
        ({"samples_per_tensor": 0}, r"samples_per_tensor is 0; allowed: 1 or more"),
    ],
)
def test_impossible_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ObserverSettings(**settings)


@pytest.mark.parametrize(("pixels", "channels", "max_samples"), [(64, 24, 64), (4096, 96, 1 << 18), (100, 7, 100)])
def test_samples_come_from_all_channels_alike(pixels: int, channels: int, max_samples: int) -> None:
    histogram = Histogram(512)
    # channel c holds the value c + 1, far from its neighbours' bins
    histogram.add(torch.arange(1.0, channels + 1).repeat(pixels, 1), max_samples)
    found = histogram.counts[histogram.counts > 0]
    assert found.sum() <= max_samples
    assert len(found) == channels and found.min() >= 0.5 * found.sum() / channels
