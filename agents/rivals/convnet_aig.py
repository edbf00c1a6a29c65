"""ConvNet-AIG: gates drawn with Gumbel noise, the task's gradient straight through them, and a target rate each.

Veit and Belongie, "Convolutional Networks with Adaptive Inference Graphs", ECCV 2018, section 3, "target rates": the
squared distance of each block's rate of use in the batch from its target is added to the task's loss. There is no
reward and no price. Simplified: all blocks have one target rate, such that the target share of MACs is met;
gates read features whose gradient ends there, so that they do not shape the backbone. Reward and price only rank
validations; the settings of policy gradients are refused, but for the cost gradient, which a reward may need, and the
price's rate, which earlier runs have: these are not used.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from agents.deciders import gumbel
from agents.reinforce import Reinforce
from agents.reinforce_config import ReinforceConfig, refuse_unused
from agents.rollout import Rollout
from lcnet_rl.distributed import global_mean
from lcnet_rl.errors import UserError
from lcnet_rl.rewards import Lagrangian, create_reward, price_matters, price_range
from lcnet_rl.seeds import Stream
from lcnet_rl.settings import check_values

UNUSED = ("rollouts", "baseline", "control_variate", "entropy", "information", "bound", "price_schedule")
"""Settings of policy gradients and of a price that moves."""


@dataclass(frozen=True)
class ConvNetAIGConfig(ReinforceConfig):
    """ConvNet-AIG's settings, where they differ from the joint agent's; ``UNUSED`` ones are refused."""

    target: float | None = 0.7
    warmup: float = 0.0
    entropy: float = 0.0
    information: float = 0.0
    temperature: float = 1.0
    """Of the Gumbel relaxation."""
    rate_weight: float = 2.0
    """Weight of the target rates' loss, a mean over blocks, beside the task's."""

    def __post_init__(self) -> None:
        reward = create_reward(self.reward)
        if isinstance(reward, Lagrangian):
            raise UserError("convnet-aig has no price that could climb: give another --reward than lagrangian")
        if self.target is None:
            raise UserError("convnet-aig needs a --target: it has rates of use, and no price")
        if not price_range(self.price).is_one:
            raise UserError(f"convnet-aig learns for its --target, not for prices: give one --price, not {self.price}")
        if not price_matters(reward, self.target + 0.01):
            raise UserError(
                f"reward {self.reward} charges nothing up to convnet-aig's target {self.target:g}: give another one"
            )
        refuse_unused(self, "convnet-aig", UNUSED)
        super().__post_init__()
        check_values(self, lambda value: value > 0, "be > 0", "temperature", "rate_weight")

    @property
    def always_kept(self) -> float:
        """0: its gates have rates to meet, and no bound."""
        return 0.0


class ConvNetAIG(Reinforce):
    """The joint trainer, with gradients through relaxed decisions in the place of policy gradients."""

    algo = "convnet-aig"
    config: ConvNetAIGConfig

    def collect(self, images: Tensor, labels: Tensor, prices: Tensor, learning: bool) -> tuple[Rollout, Tensor]:
        """As ``Reinforce.collect``; the loss is that of the rates."""
        if not learning:
            return super().collect(images, labels, prices, learning)
        generator = self.setup.generator(self.step, Stream.DECISIONS)
        rollout = self.roll(images, prices, 1, gumbel(generator, self.config.temperature))
        rates = global_mean(rollout.actions.mean((1, 2, 3)))
        return rollout, self.config.rate_weight * (rates - self.rate()).square().mean()

    def learn_price(self, share: float) -> None:
        """Nothing: no price moves the rates, and the configured one only ranks validations."""

    def rate(self) -> float:
        """The rate of use of every block at which the target share of MACs is met, as far as it has ramped up."""
        costs = self.model.costs
        target = self.config.target
        assert target is not None
        final = (target * costs.dense - costs.floor) / (costs.ceiling - costs.floor)
        return 1 - (1 - min(1.0, max(0.0, final))) * self.schedule.ramped(self.step)
