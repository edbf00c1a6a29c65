"""Fixtures that several files use."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of dark and bright images, as a data set's name."""
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for part, count in (("train", 40), ("test", 10)):
        for name, level in (("bright", 160), ("dark", 0)):
            (root / part / name).mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(level, level + 90, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{index}.png")
    return f"folder:{root}"
