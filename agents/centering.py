"""Greedy decisions of an agent in training that spend what they are to spend."""

from __future__ import annotations

import torch

from lcnet_rl.budget import OutOfReachError, center_threshold
from lcnet_rl.data import Dataset
from lcnet_rl.device import Precision
from lcnet_rl.evaluate import evaluate, recalibrate
from lcnet_rl.model import LCNet
from lcnet_rl.progress import console
from lcnet_rl.rewards import PriceRange

IMAGES = 2000
"""Training images for BatchNorm's statistics."""
CLOSE = 0.01
"""How far from the target the share of dense MACs may be, once BatchNorm has the statistics of the decisions."""
TRIES = 8
"""Shifts that are tried at most where it is further away."""


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
    """``center_threshold``, until decisions also spend the target with the BatchNorm statistics that they lead to.

    Rounds of statistics and threshold may swing: a threshold that spends too much with its own statistics is answered
    by one that spends too little with its own, and so on. Then the shift is looked for between one of each kind.
    Where ``TRIES`` shifts do not suffice, or nothing comes closer, as with few images or where even keeping everything
    spends too little, there is a warning, and the shift that came nearest stays.

    Where no threshold meets the target, a warning, and decisions stay as they are.
    """
    arguments = model, train, val, target, device, precision, IMAGES
    too_much = too_little = None  # the last shifts that spent so
    shift, tried = 0.0, []
    try:
        shift = center_threshold(*arguments, rounds, prices)
        for _ in range(TRIES):
            recalibrate(model, train, model.greedy(), device, precision, IMAGES, prices)
            share = evaluate(model, val, model.greedy(), device, precision, prices).macs_ratio
            if abs(share - target) <= CLOSE:
                return
            tried.append((abs(share - target), shift))
            too_much, too_little = (shift, too_little) if share > target else (too_much, shift)
            if too_much is None or too_little is None:
                shift += center_threshold(*arguments, 1, prices)
            else:
                model.shift_logits((too_much + too_little) / 2 - shift)
                shift = (too_much + too_little) / 2
        off, nearest = min(tried)
        model.shift_logits(nearest - shift)
        swing = too_much is not None and too_little is not None
        why = "decisions swing with BatchNorm's statistics" if swing else "no threshold comes nearer"
        text = f"{why}: the policy stays {off:.1%} of the dense MACs beside the target"
        console.print(text, style="yellow", soft_wrap=True)
    except OutOfReachError as error:
        model.shift_logits(-shift)
        console.print(f"{error}; decisions stay as they are", style="yellow", soft_wrap=True)
