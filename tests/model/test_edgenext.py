"""The model definition: names, shapes, possible inputs, agreement with timm and with the trained accuracy."""

from __future__ import annotations

import importlib
import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from edgenext_tvm.errors import UserError
from edgenext_tvm.model.checkpoint import bundled_checkpoint, checkpoint_metadata, load_model
from edgenext_tvm.model.config import VARIANTS
from edgenext_tvm.model.edgenext import build_model
from edgenext_tvm.model.init_random import init_random

DATA = Path(os.environ.get("EDGENEXT_TVM_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
NUM_IMAGES = 256


def _images(size: int, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_have_one_column_per_class(name: str) -> None:
    model = build_model(name, num_classes=3, input_size=64).eval()
    with torch.no_grad():
        logits = model(_images(64))
    assert logits.shape == (2, 3) and logits.dtype == torch.float32


@pytest.mark.parametrize("name", ["edgenext_xx_small", "edgenext_base", "edgenext_small_bn_hs"])
def test_feature_maps_halve_from_a_quarter_to_a_32nd(name: str) -> None:
    model = build_model(name, input_size=96).to("meta")
    shapes = []
    for stage in model.stages:
        stage.register_forward_hook(lambda m, x, y: shapes.append(tuple(y.shape[1:])))
    model(torch.empty(1, 3, 96, 96, device="meta"))
    assert shapes == [(dim, 24 >> i, 24 >> i) for i, dim in enumerate(model.config.dims)]


def test_uneven_channel_groups_and_sides_that_differ() -> None:
    model = build_model("edgenext_xx_small", input_size=64).eval()
    assert [conv.in_channels for conv in model.stages[2].blocks[-1].convs] == [30, 30]
    assert model.stages[2].blocks[-1].widths == [30, 30, 28]
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 64, 128)).shape == (1, 1000)


def test_images_of_a_batch_do_not_influence_each_other() -> None:
    model = init_random(build_model("edgenext_xx_small_bn_hs", 5, 64), 1)
    x = _images(64, batch=3)
    with torch.no_grad():
        together, alone = model(x), torch.cat([model(image[None]) for image in x])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_position_encoding_is_in_one_block_only_and_matters() -> None:
    model = init_random(build_model("edgenext_xx_small", 5, 64), 1)
    assert [k for k, _ in model.named_modules() if k.endswith("pos_embd")] == ["stages.1.blocks.1.pos_embd"]
    before = model(_images(64))
    with torch.no_grad():
        model.stages[1].blocks[1].pos_embd.token_projection.weight.mul_(2)
    assert not torch.allclose(before, model(_images(64)), atol=1e-3)


@pytest.mark.parametrize("name", ["edgenext_x_small", "edgenext_x_small_bn_hs"])
def test_folded_position_encoding_gives_the_same_bits_and_takes_its_size_only(name: str) -> None:
    model = init_random(build_model(name, 5, 96), 1)
    with torch.no_grad():
        before = model(_images(96))
        assert torch.equal(model.fold_position_encoding()(_images(96)), before)
        assert torch.equal(model.fold_position_encoding()(_images(96)), before)
    with pytest.raises(UserError, match="folded for 96x96 pixels, but the input has 64x64"):
        model(_images(64))


def test_equal_seeds_give_equal_models_and_leave_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    first = build_model("edgenext_xx_small", seed=9)
    assert torch.equal(torch.rand(3), expected)
    second = build_model("edgenext_xx_small", seed=9)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_every_parameter_receives_a_gradient() -> None:
    for name in ("edgenext_xx_small", "edgenext_xx_small_bn_hs"):
        model = init_random(build_model(name, 5, 64), 1).train()
        model(_images(64)).square().mean().backward()
        assert not [k for k, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 1, 64, 64), (1, 64, 64, 3)])
def test_inputs_that_are_no_rgb_batch(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"is not a batch of images; expected \[B,3,H,W\]"):
        build_model("edgenext_xx_small")(torch.zeros(shape))


@pytest.mark.parametrize("sides", [(32, 64), (64, 80), (224, 225)])
def test_images_of_impossible_sizes(sides: tuple[int, int]) -> None:
    given = f"{sides[0]}x{sides[1]}"
    with pytest.raises(UserError, match=rf"{given} pixels are not possible: .*multiple of 32 and at least 64"):
        build_model("edgenext_xx_small")(torch.zeros(1, 3, *sides))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "edgenext_xxs"}, "unknown model 'edgenext_xxs'; the variants are: edgenext_xx_small"),
        ({"name": "edgenext_base", "num_classes": 0}, "number of classes 0 is not possible"),
        ({"name": "edgenext_base", "input_size": 225}, "input size 225 is not possible"),
    ],
)
def test_impossible_models(arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_model(**arguments)


@pytest.mark.parametrize("name", [name for name in VARIANTS if not name.endswith("bn_hs")])
def test_timm_gives_the_same_logits(name: str) -> None:
    try:
        timm = importlib.import_module("timm")
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"timm cannot be imported, or its torchvision does not fit this torch: {error}")
    ours = init_random(build_model(name, 10, 96), 1)
    theirs = timm.create_model(name, num_classes=10).eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    with torch.no_grad():
        torch.testing.assert_close(ours(_images(96)), theirs(_images(96)), rtol=1e-5, atol=1e-5)


def _cifar10_test(count: int) -> tuple[torch.Tensor, np.ndarray]:
    path = DATA / "cifar10_test.npz"
    if not path.is_file():
        pytest.skip(f"CIFAR-10 test images are absent: {path} (set EDGENEXT_TVM_DATA to their folder)")
    archive = np.load(path)
    jpeg, offsets = archive["jpeg"], archive["offsets"]
    pixels = [
        np.asarray(Image.open(io.BytesIO(jpeg[offsets[i] : offsets[i + 1]].tobytes())).convert("RGB"))
        for i in range(count)
    ]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2), archive["labels"][:count]


def test_bundled_checkpoint_reaches_its_stated_accuracy() -> None:
    path = bundled_checkpoint("edgenext_xx_small")
    metadata = checkpoint_metadata(path)
    images, labels = _cifar10_test(NUM_IMAGES)
    side = metadata.input_size
    x = F.interpolate(images.float(), (side, side), mode=metadata.resize, align_corners=False) / 255
    x = (x - torch.tensor(metadata.mean).reshape(3, 1, 1)) / torch.tensor(metadata.std).reshape(3, 1, 1)
    model = load_model(path)
    with torch.inference_mode():
        predicted = torch.cat([model(batch).argmax(1) for batch in x.split(32)]).numpy()
    top1 = float((predicted == labels).mean())
    # Of these 256 images 230 are right; rounding may move an image or two.
    assert abs(top1 - 230 / 256) <= 0.012, f"top-1 {top1:.4f} on {NUM_IMAGES} images"
