"""Random views of images: what stays, what changes, and that nothing else than the generator decides."""

from __future__ import annotations

import torch

from edgenext_tvm.finetune.augment import augment, plain


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(side: int, count: int = 16) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, side, side), generator=generator(9), dtype=torch.uint8)


def test_views_have_the_size_asked_for_and_stay_in_range() -> None:
    for stored in (32, 64, 300):
        views = augment(pictures(stored), 64, 0.4, generator())
        assert (views.shape, views.dtype) == ((16, 3, 64, 64), torch.float32)
        assert views.min() >= 0.0 and views.max() <= 1.0


def test_equal_generators_give_equal_views_and_others_others() -> None:
    x = pictures(64)
    assert torch.equal(augment(x, 64, 0.4, generator(1)), augment(x, 64, 0.4, generator(1)))
    assert not torch.equal(augment(x, 64, 0.4, generator(1)), augment(x, 64, 0.4, generator(2)))


def test_images_of_a_batch_are_changed_differently() -> None:
    x = pictures(64, 1).expand(8, -1, -1, -1)
    assert len({view.sum().item() for view in augment(x, 64, 0.4, generator())}) == 8


def test_half_of_the_views_are_mirrored() -> None:
    ramp = torch.arange(64, dtype=torch.uint8).expand(1000, 3, 64, 64)
    views = augment(ramp, 64, 0.9, generator())
    rising = (views[:, 0, 32, -4:].mean(1) > views[:, 0, 32, :4].mean(1)).float().mean()
    assert 0.4 < rising < 0.6


def test_a_much_larger_image_is_not_sampled_at_single_pixels() -> None:
    stripes = (torch.arange(256) % 2 * 255).to(torch.uint8).expand(32, 3, 256, 256)
    assert augment(stripes, 64, 1.0, generator()).std((1, 2, 3)).median() < 0.05


def test_plain_resizes_the_whole_image() -> None:
    x = pictures(64)
    assert torch.equal(plain(x, 64), x.float() / 255)
    halves = torch.cat([torch.zeros(1, 3, 96, 48), torch.full((1, 3, 96, 48), 255)], 3).to(torch.uint8)
    small = plain(halves, 64)
    assert (small[..., :30] == 0).all() and (small[..., -30:] == 1).all()
