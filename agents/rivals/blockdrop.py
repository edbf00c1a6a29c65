"""BlockDrop: one look at the image, REINFORCE with the greedy decisions as baseline, and a curriculum from the end.

Wu et al., "BlockDrop: Dynamic Inference Paths in Residual Networks", CVPR 2018, section 3. Its reward is 1 - (share of
blocks kept)^2 where the class is right and a penalty where it is not; exploration keeps probabilities in [0.2, 0.8];
the baseline is the reward of the greedy decisions; decisions set in from the last block to the first.
Simplified: the reward's share is that of MACs, and the scale of its cost is found so as to meet the target, where the
paper tries penalties; the backbone learns from the start instead of after the curriculum.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from agents.deciders import Chooser
from agents.estimators import Baseline, CostGradient
from agents.reinforce import Reinforce
from agents.reinforce_config import ReinforceConfig
from agents.rollout import Rollout
from lcnet_rl.errors import UserError
from lcnet_rl.observation import Observation


@dataclass(frozen=True)
class BlockDropConfig(ReinforceConfig):
    """BlockDrop's settings, where they differ from the joint agent's."""

    reward: str = "quadratic"
    rollouts: int = 1
    warmup: float = 0.0
    baseline: Baseline = "self-critical"
    cost_gradient: CostGradient = "sampled"
    entropy: float = 0.0
    information: float = 0.0
    bound: float = 0.2
    gate_lr: float = 1e-3
    curriculum: float = 0.5
    """Share of the policy phase over which decisions set in, from the last block to the first."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.curriculum < 1:
            raise UserError(f"curriculum is a share in [0, 1), got {self.curriculum}")
        if self.cost_gradient != "sampled":
            raise UserError("blockdrop reinforces the cost that it sampled: --cost-gradient sampled")

    @property
    def always_kept(self) -> float:
        """0, as the price is moved by what the policy would spend without the bound."""
        return 0.0


class BlockDrop(Reinforce):
    """The joint trainer, with decisions that set in from the last block."""

    algo = "blockdrop"
    config: BlockDropConfig

    def roll(self, images: Tensor, prices: Tensor, rollouts: int, decide: Chooser, bound: float = 0.0) -> Rollout:
        """As ``Reinforce.roll``, but blocks before ``first_free`` are kept, and nobody was asked about them."""
        first = self.first_free()

        def constrained(p: Tensor, observation: Observation) -> Tensor:
            return torch.ones_like(p) if observation.block < first else decide(p, observation)

        rollout = super().roll(images, prices, rollouts, constrained, bound)
        free = torch.arange(self.model.depth, device=self.setup.device) >= first
        return replace(rollout, consulted=rollout.consulted * free[:, None, None, None])

    def learn_price(self, share: float) -> None:
        """As ``Reinforce.learn_price``, for the share without ``bound``, once there is a decision about every block."""
        if not self.first_free():
            super().learn_price(self.policy_share(share))

    def policy_share(self, share: float) -> float:
        """The share of a policy without ``bound``: bills are linear in the keep probabilities, so it is known."""
        floor, dense = (macs / self.model.costs.dense for macs in (self.model.costs.floor, self.model.costs.ceiling))
        bound = self.config.bound
        rate = ((share - floor) / (dense - floor) - bound) / (1 - 2 * bound)
        return floor + (dense - floor) * rate

    def first_free(self) -> int:
        """The first block about which there is a decision in this step."""
        start, depth = self.schedule.policy, self.model.depth
        if self.step < start:
            return 0
        steps = self.config.curriculum * (self.schedule.polish - start)
        done = (self.step - start) / steps if steps else 1.0
        return max(0, depth - 1 - int(done * depth))
