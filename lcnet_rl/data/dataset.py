"""What a data set is here: uint8 tensors in memory, labels, and names.

CIFAR-sized sets fit in memory whole, so an epoch is indexing and augmentation is batched tensor code
(the habit of cifar10-airbench); no worker processes, no per-image transforms.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

Split = Literal["train", "val", "test"]
Part = Literal["train", "test"]
"""What is published: training images, which ``train`` and ``val`` are cut from, and test images."""
SIZE = 32
"""Height and width of every image, in pixels."""


@dataclass(frozen=True)
class Dataset:
    """Images of one split with their labels.

    Raises:
        ValueError: shapes, lengths or types that do not fit together.
    """

    name: str
    """What ``load_dataset`` was asked for, e.g. ``"cifar10"``."""
    split: str
    """``"train"``, ``"val"`` or ``"test"``."""
    images: Tensor
    """Shape (N, 3, 32, 32), uint8, RGB."""
    labels: Tensor
    """Shape (N,), int64, an index into ``classes``."""
    classes: tuple[str, ...]
    """Class names, in the order of the labels."""
    difficulty: Tensor | None = None
    """Shape (N,), float32 in [0, 1], 0 = easiest; None where nobody knows it."""
    digest: str = ""
    """Of which files the images come, all splits of a part alike; empty where that cannot change."""
    files: tuple[str, ...] = ()
    """The N files that the images come from, below the folder of the data set; empty where images are no files."""

    def __post_init__(self) -> None:
        count = len(self.labels)
        if self.images.shape != (count, 3, SIZE, SIZE):
            right = (count, 3, SIZE, SIZE)
            raise ValueError(f"{count} labels need images {right}, got {tuple(self.images.shape)}")
        if self.images.dtype != torch.uint8 or self.labels.dtype != torch.int64:
            raise ValueError(f"need uint8 images, int64 labels; got {self.images.dtype}, {self.labels.dtype}")
        if count and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.classes):
            least, most = int(self.labels.min()), int(self.labels.max())
            raise ValueError(f"labels of {len(self.classes)} classes count from 0, got {least} to {most}")
        if self.difficulty is not None and self.difficulty.shape != (count,):
            raise ValueError(f"difficulty must be ({count},), got {tuple(self.difficulty.shape)}")
        if self.files and len(self.files) != count:
            raise ValueError(f"{count} labels need as many files or none, got {len(self.files)}")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def fingerprint(self) -> str:
        """The same for the same images with the same labels, in the same order, whatever they are called."""
        content = self.images.contiguous().numpy().tobytes() + self.labels.contiguous().numpy().tobytes()
        return hashlib.sha256(content).hexdigest()[:16]

    def sample(self, count: int) -> Dataset:
        """``count`` images, or all if there are fewer: always the same ones, from all over the set, shuffled."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(0))
        return self.subset(order[:count])

    def subset(self, indices: Tensor | Sequence[int], split: str | None = None) -> Dataset:
        """The images at ``indices`` (shape (M,)), in that order; ``split`` renames the split."""
        return replace(
            self,
            split=self.split if split is None else split,
            images=self.images[indices],
            labels=self.labels[indices],
            difficulty=None if self.difficulty is None else self.difficulty[indices],
            files=tuple(self.files[index] for index in torch.as_tensor(indices).tolist()) if self.files else (),
        )
