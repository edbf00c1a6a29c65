"""The validation split: a fixed, seeded, class-balanced slice of the training images.

Checkpoints, thresholds and hyper-parameters are chosen on it, so that the test images choose nothing.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lcnet_rl.data.dataset import Dataset, Split
from lcnet_rl.errors import UserError

SEED = 20200715
LARGEST = 5000
"""Validation images at most; CIFAR-10 gets exactly this, 500 of each class."""
SHARE = 10
"""One training image in this many is held out, where that is fewer than ``LARGEST``."""


def train_val_indices(labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Indices of the remaining training images and of the validation images, each sorted.

    The same labels always give the same split: numpy's legacy generator is used because its stream is
    frozen by policy, and no global random state is read or changed.

    Args:
        labels: shape (N,), int64, every class at least twice.
        classes: number of classes.

    Returns:
        Shapes (N - M,) and (M,), int64, disjoint; as many validation images of every class, or half of a rare one.
    """
    values = labels.cpu().numpy()
    counts = np.bincount(values, minlength=classes)
    wanted = min(LARGEST, len(values) // SHARE) // classes
    random = np.random.RandomState(SEED)
    held_out = np.zeros(len(values), dtype=bool)
    for label in range(classes):
        count = max(1, min(wanted, int(counts[label]) // 2))
        held_out[random.permutation(np.flatnonzero(values == label))[:count]] = True
    return torch.from_numpy(np.flatnonzero(~held_out)), torch.from_numpy(np.flatnonzero(held_out))


def held_out_half(val: Dataset, split: Split) -> Dataset:
    """``split`` (``"train"`` or ``"val"``) of validation images alone: every second one of each class.

    Raises:
        UserError: a class with fewer than two of them cannot give one to each side.
    """
    _check_two_of_each(val, "validation images, to be halved")
    of_class = [(val.labels == label).nonzero().flatten() for label in range(len(val.classes))]
    return val.subset(torch.cat([images[int(split == "val") :: 2] for images in of_class]).sort().values, split)


def training_part(everything: Dataset, split: Split) -> Dataset:
    """``split`` (``"train"`` or ``"val"``) of a set's official training images.

    Raises:
        UserError: a class with fewer than two of them cannot give one to each side.
    """
    _check_two_of_each(everything, "training images, one of them for validation")
    train, val = train_val_indices(everything.labels, len(everything.classes))
    return everything.subset(val if split == "val" else train, split)


def _check_two_of_each(dataset: Dataset, needed: str) -> None:
    """Refuse classes with fewer than two images, by name; ``needed`` says what images, and what two of them are for."""
    counts = dataset.labels.bincount(minlength=len(dataset.classes)).tolist()
    rare = [f"{name} ({count})" for name, count in zip(dataset.classes, counts, strict=True) if count < 2]
    if rare:
        raise UserError(f"every class of {dataset.name} needs at least 2 {needed}; too few: {', '.join(rare)}")
