"""Properties of the batched crop, flip and cutout."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch.nn.functional import pad

from lcnet_rl.data import Dataset
from lcnet_rl.data.augment import MEAN_PIXEL, Augmentation, augment
from lcnet_rl.data.sampler import FEW, FEW_AN_EPOCH, TrainingBatches, warn_if_few
from lcnet_rl.errors import UserError


def noise(count: int, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randint(0, 256, (count, channels, 32, 32), dtype=torch.uint8, generator=generator)


def crop_and_flip_of(image: torch.Tensor, result: torch.Tensor, padding: int) -> tuple[int, int, bool] | None:
    """By search: which crop (top, left) of the padded image, flipped or not, is the result."""
    around = pad(image[None].float(), [padding] * 4, mode="reflect")[0].to(torch.uint8)
    for top in range(2 * padding + 1):
        for left in range(2 * padding + 1):
            crop = around[:, top : top + 32, left : left + 32]
            for flipped in (False, True):
                if (crop.flip(2) if flipped else crop).equal(result):
                    return top, left, flipped
    return None


@pytest.mark.parametrize("padding", [0, 2, 4])
def test_every_output_is_a_reflected_crop_of_its_own_input_possibly_flipped(padding: int) -> None:
    images = noise(24)
    for image, result in zip(images, augment(images, torch.Generator().manual_seed(0), padding), strict=True):
        assert crop_and_flip_of(image, result, padding) is not None


def test_all_shifts_occur_and_half_of_the_images_are_flipped() -> None:
    images = noise(1).expand(400, -1, -1, -1)
    results = augment(images, torch.Generator().manual_seed(0), padding=1)
    found = [crop_and_flip_of(images[0], result, 1) for result in results]
    shifts = {(f[0], f[1]) for f in found if f is not None}
    assert len(shifts) == 9
    flips = sum(f[2] for f in found if f is not None)
    assert 160 < flips < 240  # four standard deviations around 200


@pytest.mark.parametrize("shape", [(5, 3, 32, 32), (1, 1, 32, 32), (3, 2, 20, 28), (0, 3, 32, 32)])
def test_shape_and_type_are_kept_and_the_input_is_left_alone(shape: tuple[int, ...]) -> None:
    images = torch.randint(0, 256, shape, dtype=torch.uint8)
    before = images.clone()
    result = augment(images, torch.Generator().manual_seed(0))
    assert (result.shape, result.dtype) == (images.shape, torch.uint8)
    assert images.equal(before)


def test_a_generator_decides_everything_and_the_global_state_nothing() -> None:
    images = noise(16)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = augment(images, torch.Generator().manual_seed(3))
    assert torch.random.get_rng_state().equal(before)
    torch.manual_seed(2)
    assert augment(images, torch.Generator().manual_seed(3)).equal(first)
    assert not augment(images, torch.Generator().manual_seed(4)).equal(first)


def test_non_contiguous_images_are_read_rightly() -> None:
    images = noise(8).contiguous(memory_format=torch.channels_last)
    expected = augment(images.contiguous(), torch.Generator().manual_seed(0))
    assert augment(images, torch.Generator().manual_seed(0)).equal(expected)


def test_a_cutout_blanks_one_square_with_the_mean_pixel_and_nothing_else() -> None:
    images = noise(200)
    plain = augment(images, torch.Generator().manual_seed(3))
    cut = augment(images, torch.Generator().manual_seed(3), cutout=8)
    mean = torch.tensor(MEAN_PIXEL, dtype=torch.uint8)[:, None]
    sizes = set()
    for before, after in zip(plain, cut, strict=True):
        changed = (before != after).any(0)
        rows, columns = (changed.any(axis).nonzero().flatten() for axis in (1, 0))
        top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
        assert after[:, top:bottom, left:right].flatten(1).eq(mean).all()
        sizes.add((int(bottom - top), int(right - left)))
    assert (8, 8) in sizes, "whole inside"
    assert max(max(size) for size in sizes) == 8
    assert min(min(size) for size in sizes) < 8, "over the border"


def test_alternating_flips_show_both_sides_of_every_image_in_two_epochs() -> None:
    images = noise(40)
    dataset = Dataset("noise", "train", images, torch.arange(40), tuple(map(str, range(40))))
    batches = TrainingBatches(dataset, 20, seed=5, augmentation=Augmentation(padding=0, flips="alternating"))
    epochs = []
    for epoch in range(4):
        flipped = {}
        for step in (2 * epoch, 2 * epoch + 1):
            for image, label in zip(*batches(step), strict=True):
                original = images[label]
                assert image.equal(original) or image.equal(original.flip(2))
                flipped[int(label)] = not image.equal(original)
        epochs.append([flipped[label] for label in range(40)])
    assert epochs[0] == epochs[2]
    assert epochs[1] == epochs[3] == [not flip for flip in epochs[0]]
    assert 8 < sum(epochs[0]) < 32  # four standard deviations around 20


def test_without_flips_and_shifts_images_are_what_they_are() -> None:
    images = noise(40)
    dataset = Dataset("noise", "train", images, torch.arange(40), tuple(map(str, range(40))))
    batches = TrainingBatches(dataset, 40, seed=5, augmentation=Augmentation(padding=0, flips="none"))
    for step in range(2):
        batch, labels = batches(step)
        assert batch.equal(images[labels])


@pytest.mark.parametrize("wrong", [{"padding": -1}, {"cutout": -1}, {"padding": 32}, {"cutout": 32}])
def test_faulty_augmentation_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UserError, match="pixels from 0 to 31, got"):
        Augmentation(**wrong)  # type: ignore[arg-type]


def test_flips_that_there_are_not_are_refused() -> None:
    with pytest.raises(UserError, match="unknown flips 'alternate'; did you mean alternating"):
        Augmentation(flips=cast(Any, "alternate"))


@pytest.mark.parametrize(("more", "more_an_epoch"), [(0, 0), (1, 0), (0, 1)])
def test_a_training_of_few_steps_in_all_and_an_epoch_may_hardly_learn(
    more: int, more_an_epoch: int, capsys: pytest.CaptureFixture[str]
) -> None:
    warn_if_few(FEW - 1 + more, FEW_AN_EPOCH - 1 + more_an_epoch, "--epochs")
    assert ("may hardly learn" in capsys.readouterr().out) == (not more and not more_an_epoch)
