"""Greedy decisions of an agent in training that spend what they are to spend."""

from __future__ import annotations

from lcnet_rl.budget import Measurement, OutOfReachError, center_threshold
from lcnet_rl.model import LCNet
from lcnet_rl.progress import warn

IMAGES = 2000
"""Training images for BatchNorm's statistics, and validation images, that an agent in training is measured by."""
CLOSE = 0.01
"""How far from the target the share of dense MACs may be, once BatchNorm has the statistics of the decisions."""
TRIES = 8
"""Shifts that are tried at most where it is further away."""


def center(model: LCNet, measurement: Measurement, target: float, rounds: int = 2) -> None:
    """``center_threshold``, until decisions also spend the target with the BatchNorm statistics that they lead to.

    Rounds of statistics and threshold may swing: a threshold that spends too much with its own statistics is answered
    by one that spends too little with its own, and so on. Then the shift is looked for between one of each kind.
    Where ``TRIES`` shifts do not suffice, or nothing comes closer, as with few images or where even keeping everything
    spends too little, there is a warning, and the shift that came nearest stays.

    Where no threshold meets the target, a warning, and decisions stay as they are.
    """
    too_much = too_little = None  # the last shifts that spent so
    shift, tried = 0.0, []
    try:
        shift = center_threshold(model, measurement, target, rounds)
        for _ in range(TRIES):
            measurement.recalibrate(model)
            share = measurement.share(model)
            if abs(share - target) <= CLOSE:
                return
            tried.append((abs(share - target), shift))
            too_much, too_little = (shift, too_little) if share > target else (too_much, shift)
            if too_much is None or too_little is None:
                moved = center_threshold(model, measurement, target, rounds=1)
                if moved == 0:  # and so it would be each time: between this threshold and the next, shares jump
                    break
                shift += moved
            else:
                model.shift_logits((too_much + too_little) / 2 - shift)
                shift = (too_much + too_little) / 2
        off, nearest = min(tried)
        model.shift_logits(nearest - shift)
        swing = too_much is not None and too_little is not None
        why = "decisions swing with BatchNorm's statistics" if swing else "no threshold comes nearer"
        text = f"{why}: the policy stays {off:.1%} of the dense MACs beside the target"
        warn(text)
    except OutOfReachError as error:
        model.shift_logits(-shift)
        warn(f"{error}; decisions stay as they are")
