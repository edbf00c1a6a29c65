"""Properties of the built-in data set."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lcnet_rl.data import Dataset, load_dataset, shapes
from lcnet_rl.data.silhouettes import SILHOUETTES


def easiest_and_hardest(dataset: Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    assert dataset.difficulty is not None
    images = dataset.images.float() / 255
    return images[dataset.difficulty < 0.2], images[dataset.difficulty > 0.8]


def test_one_seed_draws_one_set_whatever_the_global_random_state() -> None:
    np.random.seed(1)
    first = shapes.draw(300, seed=5)
    np.random.seed(2)
    second = shapes.draw(300, seed=5)
    assert first.images.equal(second.images)
    assert first.labels.equal(second.labels)
    assert first.difficulty is not None
    assert second.difficulty is not None
    assert first.difficulty.equal(second.difficulty)


def test_the_set_is_the_one_that_results_are_of() -> None:
    dataset = shapes.load("test")
    assert dataset.difficulty is not None
    assert dataset.labels[:12].tolist() == [4, 7, 6, 9, 6, 3, 7, 7, 4, 3, 8, 4]
    assert dataset.difficulty[:4].tolist() == pytest.approx([0.720756, 0.264326, 0.160284, 0.890485], abs=1e-6)
    assert float(dataset.images.float().mean()) == pytest.approx(76.06, abs=0.01)


def test_another_seed_draws_other_images() -> None:
    first, second = shapes.draw(50, seed=5), shapes.draw(50, seed=6)
    assert (first.images != second.images).flatten(1).any(1).all()
    assert shapes.SEEDS["train"] != shapes.SEEDS["test"]


def test_difficulty_is_uniform_and_says_nothing_about_the_class() -> None:
    dataset = shapes.draw(4000, seed=0)
    assert dataset.difficulty is not None
    assert dataset.difficulty.min() >= 0
    assert dataset.difficulty.max() <= 1
    counts = torch.histc(dataset.difficulty, 10, 0, 1)
    assert (counts - 400).abs().max() < 5 * 19  # five standard deviations of a binomial count
    means = torch.stack([dataset.difficulty[dataset.labels == label].mean() for label in range(10)])
    assert (means - 0.5).abs().max() < 5 * 0.29 / 20


def test_classes_are_equal_in_number() -> None:
    assert shapes.draw(230, seed=0).labels.bincount().tolist() == [23] * 10


def test_harder_images_have_lower_contrast_and_more_noise() -> None:
    easy, hard = easiest_and_hardest(shapes.draw(1000, seed=0))

    def contrast(images: torch.Tensor) -> torch.Tensor:
        """Spread of blocks of 4 x 4 pixels: the noise averages out, the shape remains."""
        return torch.nn.functional.avg_pool2d(images, 4).flatten(2).std(2).norm(dim=1).mean()

    def noise(images: torch.Tensor) -> torch.Tensor:
        """Median difference of neighbours: flat ground is the larger part of an image."""
        return (images[..., 1:] - images[..., :-1]).abs().flatten(1).median(1).values.mean()

    assert contrast(hard) < 0.7 * contrast(easy)
    assert noise(hard) > 4 * noise(easy)


def test_without_difficulty_there_is_neither_clutter_nor_occluder(monkeypatch: pytest.MonkeyPatch) -> None:
    """At difficulty 0, drawing without clutter and occluder gives the same picture; at 1 it does not."""
    labels = np.arange(40) % 10
    pictures = {}
    for difficulty in (0.0, 1.0):
        dials = np.full(40, difficulty, dtype=np.float32)
        full = shapes._render(labels, dials, np.random.default_rng(3)).astype(int)
        with monkeypatch.context() as patch:
            patch.setattr(shapes, "_paint", paint_only_the_shape(shapes._paint))
            bare = shapes._render(labels, dials, np.random.default_rng(3)).astype(int)
        pictures[difficulty] = np.abs(full - bare).max(axis=(1, 2, 3))
    assert (pictures[0.0] == 0).all()
    assert (pictures[1.0] > 10).all()


def paint_only_the_shape(paint):  # type: ignore[no-untyped-def]
    """``_paint`` that lets through one layer only, the one after all clutter."""
    calls = 0

    def only(canvas, cover, colour) -> None:  # type: ignore[no-untyped-def]
        nonlocal calls
        calls += 1
        if calls == shapes.CLUTTER + 1:
            paint(canvas, cover, colour)

    return only


@pytest.mark.parametrize("name", list(SILHOUETTES))
def test_a_silhouette_is_of_about_unit_size_and_closed(name: str) -> None:
    axis = np.linspace(-3, 3, 241, dtype=np.float32)
    x, y = np.meshgrid(axis, axis)
    distance = SILHOUETTES[name](x, y)
    inside = distance < 0
    assert distance.dtype == np.float32
    assert 0.8 < np.hypot(x, y)[inside].max() < 1.3
    assert 0.6 < inside.sum() * (axis[1] - axis[0]) ** 2 < 3.0


def test_no_two_silhouettes_coincide_under_any_rotation() -> None:
    axis = np.linspace(-1.4, 1.4, 71, dtype=np.float32)
    x, y = np.meshgrid(axis, axis)
    upright = {name: silhouette(x, y) < 0 for name, silhouette in SILHOUETTES.items()}
    for degrees in range(0, 360, 15):
        turn = np.deg2rad(degrees)
        u, v = np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x
        for name, silhouette in SILHOUETTES.items():
            turned = silhouette(u.astype(np.float32), v.astype(np.float32)) < 0
            for other, mask in upright.items():
                if other != name:
                    overlap = (turned & mask).sum() / (turned | mask).sum()
                    assert overlap < 0.9, f"{name} turned by {degrees} degrees looks like {other}"


def test_the_named_set_has_its_splits_and_a_known_difficulty() -> None:
    train, val, test = (load_dataset("shapes", split) for split in ("train", "val", "test"))
    assert [len(part) for part in (train, val, test)] == [10_800, 1_200, 2_000]
    assert val.labels.bincount().tolist() == [120] * 10
    assert all(part.difficulty is not None for part in (train, val, test))
