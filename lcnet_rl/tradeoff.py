"""What else a trained policy can do: its accuracy and MACs at other keep thresholds, or at other prices."""

from __future__ import annotations

import copy

import torch

from lcnet_rl.budget import LARGEST_LOGIT
from lcnet_rl.data import Dataset
from lcnet_rl.evaluate import evaluate, recalibrate
from lcnet_rl.model import LCNet
from lcnet_rl.observation import Observation
from lcnet_rl.progress import Progress

CURVE = (0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95)
"""Which quantiles of the keep probabilities are thresholds, or where in their range prices are."""


def trade_off(model: LCNet, train: Dataset, images: Dataset, device: torch.device) -> list[tuple[float, float]]:
    """(MACs, accuracy) of the policy over its prices; of one for a single price, over keep thresholds.

    As with --budget, a threshold gets BatchNorm's statistics for what it keeps, on training images.
    """
    prices, curve = model.spec.prices, []
    with Progress("trade-off", len(CURVE)) as bar:
        for other in thresholds(model, images, device) if prices is None else CURVE:
            if prices is None:
                moved = copy.deepcopy(model)
                recalibrate(moved, train, moved.greedy(other), device, images=2000)
                point = evaluate(moved, images, moved.greedy(other), device)
            else:
                seen = prices.at(torch.full((len(images),), other))
                point = evaluate(model, images, model.greedy(), device, prices=seen)
            curve.append((float(point.macs.mean()), point.accuracy))
            bar.advance()
    return curve


def thresholds(model: LCNet, images: Dataset, device: torch.device) -> list[float]:
    """Keep thresholds that drop more and more of what the greedy policy decides about: quantiles of its probabilities.

    Once trained, it is sure of most decisions, so thresholds at even distances would nearly all do the same.
    """
    seen: list[torch.Tensor] = []

    def decide(observation: Observation) -> torch.Tensor:
        logits, block = model.policy_logits(observation), observation.block
        if model.has_threshold(block):
            seen.append(logits[:, : model.decisions.bits[block]].flatten().cpu())
        return (logits > 0).float()

    evaluate(model, images, decide, device)
    quantiles = torch.cat(seen).double().quantile(torch.tensor(CURVE, dtype=torch.float64))
    return quantiles.clamp(-LARGEST_LOGIT, LARGEST_LOGIT).sigmoid().tolist()
