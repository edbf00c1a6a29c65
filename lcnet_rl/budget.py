"""Greedy decisions that meet a budget: the keep threshold, or the price, is found on validation images."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace

import torch

from lcnet_rl.batchnorm import CALIBRATION_IMAGES
from lcnet_rl.data import Dataset
from lcnet_rl.decisions import threshold_logit
from lcnet_rl.device import Precision
from lcnet_rl.errors import UserError
from lcnet_rl.evaluate import evaluate, recalibrate
from lcnet_rl.job import from_main
from lcnet_rl.model import LCNet
from lcnet_rl.rewards import PriceRange

LARGEST_LOGIT, GRID = 24.0, 4096
"""Keep thresholds are looked for between the logits -24 and 24, which are GRID points from 0."""
PRICE_GRID = 64
"""Prices are looked for on twice as many points of their range, even in its logarithm."""


class OutOfReachError(UserError):
    """No keep threshold meets a budget."""


@dataclass(frozen=True)
class Measurement:
    """How to measure what greedy decisions spend: images, device, precision, prices."""

    train: Dataset
    """Training images, for BatchNorm's statistics."""
    val: Dataset
    """Validation images, never test images."""
    device: torch.device
    """Where to compute."""
    _: KW_ONLY
    precision: Precision = "fp32"
    """As for ``evaluate``."""
    prices: PriceRange | None = None
    """The prices that the policy sees, spread evenly over the images; None is the model's own."""
    images: int = CALIBRATION_IMAGES
    """How many training images to average the statistics over."""
    each: Callable[[], object] = lambda: None
    """Called whenever it is known what a threshold spends."""

    def recalibrate(self, model: LCNet) -> None:
        """Give BatchNorm the statistics of the greedy decisions."""
        decide, device, precision = model.greedy(), self.device, self.precision
        recalibrate(model, self.train, decide, device, precision=precision, images=self.images, prices=self.prices)

    def share(self, model: LCNet, threshold: float = 0.5) -> float:
        """The mean share of dense MACs, gates included, that decisions at ``threshold`` spend.

        The main process's answer counts for all: those that round differently would end a search at another step.
        """
        decide, device, precision = model.greedy(threshold), self.device, self.precision
        results = evaluate(model, self.val, decide, device, precision=precision, prices=self.prices)
        self.each()
        return from_main(lambda: results.macs_ratio)


def calibrate_threshold(model: LCNet, measurement: Measurement, budget: float) -> float:
    """The keep threshold of ``threshold_within`` for greedy decisions, ``budget`` being a mean share of dense MACs.

    Raises:
        OutOfReachError: when even the strictest threshold costs more than the budget.
    """
    least = "without the last network it" if model.backbone.second else "keeping nothing"
    return threshold_within(budget, lambda threshold: measurement.share(model, threshold), least)


def threshold_within(budget: float, share: Callable[[float], float], least: str = "keeping nothing") -> float:
    """The smallest keep threshold that stays within a budget.

    If every one does, it is the largest one that still keeps everything that the smallest keeps.

    Args:
        budget: mean share of dense MACs.
        share: what is spent at a threshold in (0, 1); a higher one costs no more.
        least: what the strictest threshold does, in words.

    Raises:
        OutOfReachError: when even the strictest one costs more.
    """
    cost = functools.cache(lambda point: share(_threshold(point)))
    point = smallest(lambda point: cost(point) <= budget, GRID)
    if point is None:
        raise OutOfReachError(f"no threshold meets a budget of {budget:.3f}: {least} still costs {cost(GRID):.3f}")
    if point == -GRID:
        cheaper = smallest(lambda point: cost(point) < cost(-GRID), GRID)
        point = 0 if cheaper is None else cheaper - 1
    return _threshold(point)


def center_threshold(model: LCNet, measurement: Measurement, budget: float, rounds: int = 2) -> float:
    """Shift keep logits, in place, so that greedy decisions at 1/2 stay within a budget on validation images.

    All of them, or of several networks the last one's.

    In rounds, because BatchNorm's statistics depend on the decisions, and the decisions on the statistics.

    Args:
        model: changed in place: its keep logits, and BatchNorm's statistics.
        measurement: of what decisions spend.
        budget: mean share of dense MACs, gates included.
        rounds: of statistics, then threshold.

    Returns:
        What was added to the keep logits, all rounds together.

    Raises:
        OutOfReachError: as ``calibrate_threshold``; the model is then as it was, but for BatchNorm.
    """
    total = 0.0
    try:
        for _ in range(rounds):
            measurement.recalibrate(model)
            shift = -threshold_logit(calibrate_threshold(model, measurement, budget))
            model.shift_logits(shift)
            total += shift
    except OutOfReachError:
        model.shift_logits(-total)
        raise
    return total


def meet_budget(model: LCNet, measurement: Measurement, budget: float) -> tuple[str, float]:
    """Change ``model``, in place, so that its greedy decisions stay within a budget on validation images.

    A policy for a range of prices is set to the price that does it; others are centred (``center_threshold``).

    Args:
        model: the network.
        measurement: of what decisions spend; its prices are the range that the policy was trained for, if it was.
        budget: mean share of dense MACs, gates included.

    Returns:
        A sentence on what was found, and what was added to the keep logits that a threshold is for.

    Raises:
        UserError: when nothing meets the budget.
    """
    if not 0 < budget < math.inf:
        raise UserError(f"budget is a share of dense MACs > 0, got {budget}")
    if budget > (most := model.costs.ceiling / model.costs.dense):
        raise UserError(f"budget is a share of dense MACs; keeping everything costs {most:.4g}, got {budget:g}")
    if measurement.prices is not None and not measurement.prices.is_one:
        model.price.fill_(calibrate_price(model, measurement, budget))
        return f"budget {budget:g}: met on validation images at price {float(model.price):.3g}", 0.0
    shift = center_threshold(model, measurement, budget)
    threshold = 1 / (1 + math.exp(shift))
    said = f"budget {budget:g}: met on validation images with keep threshold {threshold:.3f}, BatchNorm recalibrated"
    return said, shift


def calibrate_price(model: LCNet, measurement: Measurement, budget: float) -> float:
    """The price of ``price_within`` for greedy decisions of a policy for a range of prices, on validation images.

    Args:
        model: the network; its own price is left as it was.
        measurement: of what decisions spend, with the range of prices that the policy was trained for.
        budget: mean share of dense MACs, gates included.

    Raises:
        UserError: when even the highest price costs more than the budget.
    """
    assert measurement.prices is not None

    def share(price: float) -> float:
        return replace(measurement, prices=PriceRange(price, price)).share(model)

    return price_within(budget, share, measurement.prices)


def price_within(budget: float, share: Callable[[float], float], prices: PriceRange) -> float:
    """The smallest price in a range at which ``share``, what is spent at a price, stays within a budget.

    Raises:
        UserError: when even the highest one costs more.
    """

    def price(point: int) -> float:
        return float(prices.at(torch.tensor((point + PRICE_GRID) / (2 * PRICE_GRID))))

    point = smallest(lambda point: share(price(point)) <= budget, PRICE_GRID)
    if point is None:
        raise UserError(
            f"no price in {prices} meets a budget of {budget:.3f}: at {prices.high:g} it still costs "
            f"{share(prices.high):.3f}; train with a higher --price"
        )
    return price(point)


def _threshold(point: int) -> float:
    return 1 / (1 + math.exp(-LARGEST_LOGIT * point / GRID))


def smallest(holds: Callable[[int], bool], limit: int) -> int | None:
    """The smallest integer in [-limit, limit] from which on ``holds`` is true; None if it is true nowhere.

    Looks outwards from 0, in strides that grow fourfold, and halves the last stride: an answer near 0 is found in few
    calls.
    """
    up = not holds(0)
    near, stride = 0, min(16, limit)
    far = stride if up else -stride
    while holds(far) != up:
        if abs(far) == limit:
            return None if up else -limit
        near, far = far, max(-limit, min(limit, 4 * far))
    low, high = (near, far) if up else (far, near)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
