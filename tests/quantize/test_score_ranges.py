"""Method `auto`: of several ranges, each tensor gets the one that disturbs the logits least."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgenext_tvm.quantize import ObserverSettings, open_images, quantize_model, quantize_with_recipe
from edgenext_tvm.quantize.calibrate import calibrate
from edgenext_tvm.quantize.insert_qdq import insert_observers
from edgenext_tvm.quantize.score_ranges import PERCENTILES, candidates, choose_ranges

AUTO = ObserverSettings(method="auto")


class OutliersCount(nn.Module):
    """Reads only the rare large values of its input, or only the common small ones."""

    def __init__(self, large: bool) -> None:
        super().__init__()
        self.large = large
        self.body, self.last = nn.Conv2d(3, 3, 1, bias=False), nn.Linear(3, 2)
        self.body.weight = nn.Parameter(torch.eye(3).reshape(3, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        kept = torch.relu(y - 2.0) if self.large else torch.clamp(y, -0.5, 0.5)
        return self.last(kept.mean((2, 3)))


def batches() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(6, 1, 3, 32, 32, generator=generator) * 0.1
    common[:, :, 0, 0, 0] = 10.0  # one value of 3072
    return list(common)


def chosen_scale(large: bool) -> tuple[float, float]:
    torch.manual_seed(0)
    images = batches()
    prepared, observers = insert_observers(OutliersCount(large).eval(), images[0], AUTO)
    calibrate(prepared, images[:4], 4, quiet=True)
    (body,) = [observer for observer in observers if observer.keys == ["body:conv2d"]]
    widest = candidates(body)["minmax"][0]
    choose_ranges(prepared, observers, images[4:])
    return body.qparams()[0], widest


def test_what_the_logits_read_decides() -> None:
    keeps_large, widest = chosen_scale(large=True)
    keeps_small, _ = chosen_scale(large=False)
    assert keeps_large > 0.9 * widest
    assert keeps_small < 0.5 * widest


def test_recipe_tells_the_method_of_each_tensor(small_model, small_preprocessing, small_input) -> None:
    program = quantize_model(small_model, open_images("synthetic:8"), small_preprocessing, AUTO, quiet=True)
    methods = {params.method for params in program.recipe.activations.values()}
    percentiles = {f"percentile {share:g}" for share in PERCENTILES}
    assert methods <= {"mse", "minmax", "mse^4", "mse, plain", *percentiles}
    again = quantize_with_recipe(small_model, program.recipe)
    assert torch.equal(again(small_input), program(small_input))
