"""Accuracy and compute of decisions on a data set, and what is needed to compare decisions fairly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lcnet_rl.batchnorm import CALIBRATION_IMAGES, average_statistics
from lcnet_rl.data import Dataset
from lcnet_rl.device import Precision, autocast
from lcnet_rl.model import LCNet
from lcnet_rl.observation import Decider
from lcnet_rl.rewards import Judgement, PriceRange, Reward, judge

BATCH = 250
"""Images that are evaluated at once: of 125, 250 and 500 the fastest on a CPU, with the same results."""


@dataclass(frozen=True)
class Results:
    """What became of N images; all on the CPU."""

    predictions: Tensor
    """(N,), int64."""
    correct: Tensor
    """(N,), 0 or 1, float32."""
    log_prob: Tensor
    """(N,), log-probability of the label, in nats."""
    confidence: Tensor
    """(N,), probability of the predicted class."""
    macs: Tensor
    """(N,), the bill, gates included, float64."""
    shares: Tensor
    """(N,), the bill as a share of the dense backbone's MACs, float64."""
    actions: Tensor
    """(depth, N, action_size), 0 or 1, float32; bits that changed nothing are 0."""

    @property
    def accuracy(self) -> float:
        """In [0, 1]."""
        return float(self.correct.double().mean())

    @property
    def macs_ratio(self) -> float:
        """Mean bill as a share of the dense backbone's MACs."""
        return float(self.shares.mean())

    @property
    def spread(self) -> float:
        """Standard deviation over images of the share of dense MACs."""
        return float(self.shares.std(correction=0))

    def reward(self, reward: Reward, price: float | Tensor) -> float:
        """Mean reward at ``price``, a number or (N,)."""
        shares = self.shares.float()
        judged = Judgement(self.correct, self.log_prob, self.confidence)
        return float(reward(judged, shares, torch.as_tensor(price).expand_as(shares)).mean())


@torch.no_grad()
def evaluate(
    model: LCNet,
    dataset: Dataset,
    decisions: Decider | Tensor,
    device: torch.device,
    *,
    precision: Precision = "fp32",
    prices: PriceRange | Tensor | None = None,
    each: Callable[[int], object] = lambda images: None,
) -> Results:
    """Classify a whole data set, in eval mode (in which the model is left).

    Args:
        model: the network.
        dataset: N images.
        decisions: who decides, e.g. ``model.greedy()``, or fixed actions (depth, N, action_size).
        device: where to compute.
        precision: float32 unless speed matters more than the last digits.
        prices: that the policy sees, (N,) one with each image, or a range, spread evenly over the images; None is the
            model's own.
        each: called after each batch, with how many images it has.
    """
    model.eval()
    parts, seen = [], spread_prices(prices, len(dataset)) if isinstance(prices, PriceRange) else prices
    for start in range(0, len(dataset), BATCH):
        rows = slice(start, min(start + BATCH, len(dataset)))
        decide = decisions if callable(decisions) else replay(decisions[:, rows].to(device))
        with autocast(device, precision):
            outcome = model.run(dataset.images[rows].to(device), decide, None if seen is None else seen[rows])
        judged = judge(outcome.logits.cpu(), dataset.labels[rows])
        parts.append(
            {
                "predictions": outcome.logits.argmax(1).cpu(),
                "correct": judged.correct,
                "log_prob": judged.log_prob,
                "confidence": judged.confidence,
                "macs": outcome.macs.cpu(),
                "actions": outcome.actions.transpose(0, 1).cpu(),
            }
        )
        each(len(judged.correct))
    columns = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    actions = columns.pop("actions").transpose(0, 1)
    return Results(
        **columns,
        shares=columns["macs"] / model.costs.dense,
        actions=model.decisions.executed(actions),
    )


def replay(actions: Tensor) -> Decider:
    """A decider that repeats ``actions`` (depth, B, action_size), whatever it sees."""
    return lambda observation: actions[observation.block]


def spread_prices(prices: PriceRange, count: int) -> Tensor:
    """``count`` prices (count,) that cover the range evenly, neighbours far apart (steps of the golden ratio)."""
    golden = (5**0.5 - 1) / 2
    return prices.at((torch.arange(count, dtype=torch.float64) * golden % 1).float())


def recalibrate(
    model: LCNet,
    training: Dataset,
    decisions: Decider | Tensor,
    device: torch.device,
    *,
    precision: Precision = "fp32",
    images: int = CALIBRATION_IMAGES,
    prices: PriceRange | None = None,
) -> None:
    """Set BatchNorm's running statistics to those of the given decisions, on training images.

    Statistics gathered while decisions were sampled belong to other paths than the ones that will run; accuracy can
    collapse over it. Uses ``images`` of ``training``, without augmentation.

    Args:
        model: changed in place and left in eval mode, the same in all processes.
        training: never validation or test images.
        decisions: who decides, or one static action (depth, 1, action_size) for all images.
        device: where to compute.
        precision: as for ``evaluate``.
        images: how many images to average over.
        prices: the prices that the policy sees, spread evenly over the images; None is the model's own.
    """

    def forward(batch: Tensor, price: Tensor | None = None) -> None:
        decide = decisions if callable(decisions) else replay(decisions.to(device).expand(-1, len(batch), -1))
        with autocast(device, precision):
            model.run(batch.to(device), decide, price)

    chosen = training.sample(images).images
    seen = () if prices is None else (spread_prices(prices, len(chosen)),)
    model.train()
    if model.policy:
        model.policy.eval()
    average_statistics(model, model.norms(), forward, chosen, *seen)
