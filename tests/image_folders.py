"""Folders of images that a network learns to tell apart at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def dark_and_bright(root: Path, train: int, test: int) -> str:
    """So many images of each of two classes below ``root``, as a data set's name."""
    generator = np.random.default_rng(0)
    for part, count in (("train", train), ("test", test)):
        for name, level in (("bright", 160), ("dark", 0)):
            (root / part / name).mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(level, level + 90, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{index}.png")
    return f"folder:{root}"
