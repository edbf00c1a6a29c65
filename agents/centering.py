"""Greedy decisions of an agent in training that spend what they are to spend."""

from __future__ import annotations

import torch

from lcnet_rl.budget import OutOfReachError, center_threshold
from lcnet_rl.data import Dataset
from lcnet_rl.device import Precision
from lcnet_rl.model import LCNet
from lcnet_rl.progress import console
from lcnet_rl.rewards import PriceRange

IMAGES = 2000
"""Training images for BatchNorm's statistics."""


def center(
    model: LCNet,
    train: Dataset,
    val: Dataset,
    target: float,
    device: torch.device,
    precision: Precision,
    rounds: int = 2,
    prices: PriceRange | None = None,
) -> None:
    """``center_threshold``; where no threshold meets the target, a warning, and decisions stay as they are."""
    try:
        center_threshold(model, train, val, target, device, precision, IMAGES, rounds, prices)
    except OutOfReachError as error:
        console.print(f"{error}; decisions stay as they are", style="yellow", soft_wrap=True)
