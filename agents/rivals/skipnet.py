"""SkipNet: supervised gates first, then REINFORCE and cross-entropy together.

Wang et al., "SkipNet: Learning Dynamic Routing in Convolutional Networks", ECCV 2018, section 3, "hybrid
reinforcement learning": decisions are rewarded by the log-probability of the true class less the price of the blocks
run. Its supervised pre-training, here in the warm-up, rounds the gates forwards and lets the task's gradient through
backwards.
Simplified: returns are compared with their mean over the batch, where the paper has no baseline, and exploration is
kept alive (bound, entropy), both to SkipNet's advantage; the price is found so as to meet the target; the first block
may be skipped too; gates read features whose gradient ends there, so that they do not shape the backbone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from agents.deciders import rounded
from agents.estimators import Baseline, CostGradient
from agents.reinforce import Reinforce
from agents.reinforce_config import ReinforceConfig, refuse_unused
from agents.rollout import Rollout


@dataclass(frozen=True)
class SkipNetConfig(ReinforceConfig):
    """SkipNet's settings, where they differ from the joint agent's; its warm-up has no random decisions to set."""

    reward: str = "confidence"
    rollouts: int = 1
    baseline: Baseline = "batch-mean"
    cost_gradient: CostGradient = "sampled"
    information: float = 0.0
    bound: float = 0.1
    """Supervised gates end nearly certain to keep, and without this much exploration a short training never finds out
    what may be skipped. The target is met by rollouts, and so must exceed what this share of all blocks costs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_unused(self, "skipnet", ["warmup_keep"])


class SkipNet(Reinforce):
    """The joint trainer, with a supervised warm-up of the gates."""

    algo = "skipnet"

    def collect(self, images: Tensor, labels: Tensor, prices: Tensor, learning: bool) -> tuple[Rollout, Tensor]:
        """As ``Reinforce.collect``, but in the warm-up the gates decide, and learn from the task's loss."""
        if self.step >= self.schedule.policy:
            return super().collect(images, labels, prices, learning)
        return self.roll(images, prices, 1, rounded), torch.zeros((), device=self.setup.device)
