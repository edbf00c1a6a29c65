"""The built-in data set ``shapes``: drawn by code from a seed, with a known difficulty for every image.

Ten silhouettes at random places, sizes, angles and colours on a shaded background. One number per image, its
difficulty, uniform in [0, 1], turns four dials the same way: less contrast, more clutter behind the shape, a
wider occluder before it, more pixel noise. So "does a policy spend more on hard images?" has a ground truth.
It needs no file and no network.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from numpy.typing import NDArray

from lcnet_rl.data.dataset import SIZE, Dataset, Part
from lcnet_rl.data.silhouettes import SILHOUETTES

CLASSES = tuple(SILHOUETTES)
COUNTS: dict[Part, int] = {"train": 12_000, "test": 2_000}
SEEDS: dict[Part, int] = {"train": 20_200_715, "test": 20_200_716}
CHUNK = 200
"""Images drawn at a time, to keep the working memory small."""

TILT = 0.5
"""Largest rotation of a shape either way, in radians: enough to vary, little enough to be learned in minutes."""
CONTRAST = (0.85, 0.24)
"""Distance in RGB (unit cube) between shape and background colour, at difficulty 0 and 1."""
NOISE = (0.005, 0.075)
"""Standard deviation of the pixel noise, of full scale, at difficulty 0 and 1."""
CLUTTER = 6
"""Distractors (lines and blobs) behind the shape at difficulty 1; none at 0."""
OCCLUSION = 0.4
"""Half width of the occluding stripe at difficulty 1, in units of the shape's radius; zero at 0."""

Array = NDArray[np.float32]
_AXIS = np.arange(SIZE, dtype=np.float32) + np.float32(0.5)


@functools.lru_cache(maxsize=2)
def load(part: Part) -> Dataset:
    """The 12,000 training or the 2,000 test images, always the same; seeds of the two are disjoint."""
    return draw(COUNTS[part], SEEDS[part], part)


def draw(count: int, seed: int, part: Part = "train") -> Dataset:
    """``count`` images from ``seed``, classes as equal in number as they can be, in random order.

    Returns:
        A data set whose ``difficulty`` is known.
    """
    random = np.random.default_rng(seed)
    labels = random.permutation(np.arange(count) % len(CLASSES))
    difficulty = random.random(count, dtype=np.float32)
    images = np.empty((count, 3, SIZE, SIZE), dtype=np.uint8)
    for start in range(0, count, CHUNK):
        chosen = slice(start, start + CHUNK)
        images[chosen] = _render(labels[chosen], difficulty[chosen], random)
    return Dataset(
        "shapes",
        part,
        torch.from_numpy(images),
        torch.from_numpy(labels.astype(np.int64)),
        CLASSES,
        torch.from_numpy(difficulty),
    )


def _render(labels: NDArray[np.int64], difficulty: Array, random: np.random.Generator) -> NDArray[np.uint8]:
    """Back to front: background, clutter, shape, occluder, noise. Returns shape (B, 3, 32, 32)."""
    count = len(labels)
    behind, colour = _colours(difficulty, random)
    canvas = _background(behind, random)
    radius = _uniform(random, count, 7.0, 11.0)
    margin = 0.8 * radius
    centre_x = margin + random.random(count, dtype=np.float32) * (SIZE - 2 * margin)
    centre_y = margin + random.random(count, dtype=np.float32) * (SIZE - 2 * margin)
    _add_clutter(canvas, behind, difficulty, random)
    x, y = _own_frame(centre_x, centre_y, radius, _uniform(random, count, -TILT, TILT))
    distance = np.empty_like(x)
    for label, silhouette in enumerate(SILHOUETTES.values()):
        ours = labels == label
        distance[ours] = silhouette(x[ours], y[ours])
    _paint(canvas, _coverage(distance * radius[:, None, None]), colour)
    _add_occluder(canvas, behind, difficulty, (centre_x, centre_y, radius), random)
    noise = random.standard_normal(canvas.shape, dtype=np.float32)
    canvas += noise * _dial(NOISE, difficulty)[:, None, None, None]
    return (canvas.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def _colours(difficulty: Array, random: np.random.Generator) -> tuple[Array, Array]:
    """Background and shape colours, (B, 3) each: the second is ``CONTRAST`` away from the first, and mostly lighter.

    Never half of them the other way round: two kinds of images that need different filters would be what a policy
    tells apart first, and what it spends would say more about the kind than about the difficulty.
    """
    count = len(difficulty)
    behind = _uniform(random, (count, 3), 0.12, 0.42)
    towards = _uniform(random, (count, 3), -0.25, 1.0)
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    colour = behind + towards * _dial(CONTRAST, difficulty)[:, None]
    return behind.astype(np.float32), colour.clip(0, 1).astype(np.float32)


def _background(behind: Array, random: np.random.Generator) -> Array:
    """A shade across the image around colour ``behind``: (B, 3, 32, 32)."""
    count = len(behind)
    angle = _uniform(random, count, 0, 2 * np.pi)
    middle = np.full(count, SIZE / 2, dtype=np.float32)
    across, _ = _own_frame(middle, middle, 2 * middle, angle)
    strength = _uniform(random, (count, 3), -0.12, 0.12)
    return behind[:, :, None, None] + strength[:, :, None, None] * across[:, None]


def _add_clutter(canvas: Array, behind: Array, difficulty: Array, random: np.random.Generator) -> None:
    """Short lines and small blobs; how many grows with difficulty, the last one fading in."""
    count = len(canvas)
    for index in range(CLUTTER):
        x, y = _own_frame(
            _uniform(random, count, 0, SIZE),
            _uniform(random, count, 0, SIZE),
            np.ones(count, dtype=np.float32),
            _uniform(random, count, 0, 2 * np.pi),
        )
        length = np.where(random.random(count) < 0.6, _uniform(random, count, 3, 9), 0)[:, None, None]
        thickness = np.where(length > 0, 0.7, _uniform(random, count, 1.2, 2.6)[:, None, None])
        beyond = np.maximum(np.abs(x) - length.astype(np.float32), 0)
        cover = _coverage(np.hypot(beyond, y) - thickness.astype(np.float32))
        shown = (difficulty * CLUTTER - index).clip(0, 1)[:, None, None]
        colour = (behind + _uniform(random, (count, 3), -0.22, 0.22)).clip(0, 1)
        _paint(canvas, cover * shown, colour)


def _add_occluder(
    canvas: Array,
    behind: Array,
    difficulty: Array,
    shape: tuple[Array, Array, Array],
    random: np.random.Generator,
) -> None:
    """A stripe in nearly the background's colour across the shape, wider with difficulty."""
    count = len(canvas)
    centre_x, centre_y, radius = shape
    off = radius * _uniform(random, count, -0.7, 0.7)
    angle = _uniform(random, count, 0, 2 * np.pi)
    x, _ = _own_frame(centre_x + off * np.cos(angle), centre_y + off * np.sin(angle), radius, angle)
    width = OCCLUSION * difficulty
    cover = _coverage((np.abs(x) - width[:, None, None]) * radius[:, None, None])
    cover *= (width * radius).clip(0, 1)[:, None, None]  # a stripe thinner than a pixel fades out
    _paint(canvas, cover, (behind + _uniform(random, (count, 3), -0.1, 0.1)).clip(0, 1))


def _own_frame(centre_x: Array, centre_y: Array, radius: Array, angle: Array) -> tuple[Array, Array]:
    """Pixel centres in frames moved, scaled and turned per image: two arrays (B, 32, 32)."""
    dx = (_AXIS[None, None, :] - centre_x[:, None, None]) / radius[:, None, None]
    dy = (_AXIS[None, :, None] - centre_y[:, None, None]) / radius[:, None, None]
    cosine, sine = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    return dx * cosine + dy * sine, dy * cosine - dx * sine


def _coverage(distance: Array) -> Array:
    """Share of a pixel inside, from its centre's signed distance in pixels: a one-pixel soft edge."""
    return (np.float32(0.5) - distance).clip(0, 1)


def _paint(canvas: Array, cover: Array, colour: Array) -> None:
    """Lay ``colour`` (B, 3) over ``canvas`` (B, 3, 32, 32), in place, where ``cover`` (B, 32, 32) says so."""
    layer = colour[:, :, None, None] - canvas
    layer *= cover[:, None]
    canvas += layer


def _dial(ends: tuple[float, float], difficulty: Array) -> Array:
    return np.float32(ends[0]) + np.float32(ends[1] - ends[0]) * difficulty


def _uniform(random: np.random.Generator, shape: int | tuple[int, ...], low: float, high: float) -> Array:
    return np.float32(low) + np.float32(high - low) * random.random(shape, dtype=np.float32)
