"""What compute costs while an agent trains: a price, a price that is moved to meet a target, or a range of prices.

A price of its own meaning is chosen with ``price``; a share of dense MACs with ``target``, or with the ``lagrangian``
reward, whose price is the dual variable of that constraint; one agent for many budgets with a range of prices.

Gates read the price too. Of a target's controller, ``reinforce`` shows them the slow, integral part only. If they also
read the part that answers the last step's overspending, decisions would depend on those of the step before, and swing
with them. In an environment, and so for ``ppo`` and ``a2c``, what is read is what is charged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from agents.finetune import FinetuneConfig
from lcnet_rl.distributed import rand_rows
from lcnet_rl.errors import UserError
from lcnet_rl.model import LCNet
from lcnet_rl.rewards import Lagrangian, PriceRange, create_reward, price_matters, price_range
from lcnet_rl.settings import check_values

PriceSchedule = Literal["constant", "linear", "cosine"]
SHORTEST_INTEGRAL = 0.3
"""Share of the policy's training; see ``PricingConfig.integral_share``."""


@dataclass(frozen=True)
class PricingConfig(FinetuneConfig):
    """What agents are rewarded for."""

    reward: str = "confidence"
    """NAME or NAME:parameter=value,... of a shape: linear, quadratic, confidence, confidence-gain, potential, budget,
    lagrangian, asymmetric; or MODULE:FUNCTION of your own."""
    price: float | str = 0.3
    """Reward lost by spending the dense model's MACs once; with a target, where the price starts (of lagrangian: at 0).
    A range like 0.05..1.0 trains one agent for all prices in it."""
    target: float | None = None
    """Mean share of dense MACs to reach: the price then moves by itself to where the policy spends just that."""
    price_rate: float = 6.0
    """With a target, the gains of its controller: overspending by all of the dense MACs raises the price by this at
    once (proportional), and by as much again during a ramp's length, or 0.3 of the policy's training if the ramp is
    shorter (integral)."""
    price_schedule: PriceSchedule = "linear"
    """How a price rises from 0, a target falls from 1, or a range opens from its lowest price: at once (constant),
    evenly (linear), or slowly at both ends (cosine). Lagrangian's target stays."""
    ramp: float = 0.3
    """Share of the policy's training over which they do."""

    def __post_init__(self) -> None:
        super().__post_init__()
        reward, prices = create_reward(self.reward), price_range(self.price)
        if self.target is not None and not 0 < self.target <= 1:
            raise UserError(f"target is a share of dense MACs in (0, 1], got {self.target}")
        if isinstance(reward, Lagrangian):
            if self.target is not None:
                raise UserError(f"lagrangian has a target of its own: write --reward lagrangian:target={self.target}")
            if not 0 < reward.target <= 1:
                raise UserError(f"lagrangian's target is a share of dense MACs in (0, 1], got {reward.target}")
        if isinstance(reward, Lagrangian) and not prices.is_one:
            raise UserError(f"lagrangian finds one price by itself: for the range {prices} give another --reward")
        if self.aim is not None and not prices.is_one:
            raise UserError(
                f"a target (here {self.aim:g}, given or the preset's) moves one price: for the range {prices} give "
                "--target None too"
            )
        if not prices.is_one and not price_matters(reward):
            raise UserError(f"reward {self.reward} charges the same at all prices: give one --price, not {prices}")
        # Just beyond the target too: what is free up to there only can still be held to it.
        if self.aim is not None and not price_matters(reward, self.aim + 0.01):
            up_to, other = ("up to there ", "target") if price_matters(reward) else ("", "--reward")
            raise UserError(
                f"no price holds a policy to the target {self.aim:g} (given or the preset's): {up_to}reward "
                f"{self.reward} charges the same at all prices; give another {other}, or --target None"
            )
        check_values(self, lambda value: value >= 0, "be >= 0", "price_rate")
        check_values(self, lambda value: 0 <= value <= 1, "be in [0, 1]", "ramp")

    @property
    def always_kept(self) -> float:
        """The least keep probability of rollouts, where exploration bounds it and they have to meet the target."""
        return 0.0

    @property
    def integral_share(self) -> float:
        """Share of the policy's training in which overspending moves the price by ``price_rate`` for good.

        The ramp's, but not of a short one: decisions answer a price only after many updates, and a price that does not
        wait for them runs away.
        """
        return max(self.ramp, SHORTEST_INTEGRAL)

    @property
    def aim(self) -> float | None:
        """The mean share of dense MACs to reach, if there is one."""
        reward = create_reward(self.reward)
        return reward.target if isinstance(reward, Lagrangian) else self.target


def scheduled(schedule: PriceSchedule, progress: float) -> float:
    """How far a price is at ``progress`` (in [0, 1]) of its ramp, in [0, 1]."""
    if schedule == "constant":
        return 1.0
    if schedule == "linear":
        return progress
    return (1 - math.cos(math.pi * progress)) / 2


class Pricing:
    """The price now, and how it moves.

    Attributes:
        now: what the gates read, one price or a range.
        push: what rewards charge on top of it; 0 but on the way to a target.
    """

    def __init__(self, config: PricingConfig, model: LCNet, updates: float) -> None:
        """Start at 0, a range at its lowest price, and with a target at the configured one (``lagrangian``: at 0).

        Args:
            config: the settings.
            model: whose least possible bill, of rollouts, a target must exceed.
            updates: over how many of them a target's integral part answers as much as the proportional one; see
                ``integral_share``.

        Raises:
            UserError: for a target that is out of reach.
        """
        self.config, self.target = config, config.aim
        self._updates = max(1.0, updates)
        self._final = price_range(config.price)
        self._dual = isinstance(create_reward(config.reward), Lagrangian)
        kept = config.always_kept
        everywhere = torch.full((model.depth, 1, model.action_size), kept)
        least = float(model.decisions.path_bill(everywhere)) / model.costs.dense
        if self.target is not None and self.target <= least:
            what = f"with --bound {kept:g} rollouts cost" if kept else "keeping nothing costs"
            raise UserError(f"target {self.target} is out of reach: {what} at least {least:.3f} of dense MACs")
        ramps = self.target is None or self._dual
        self.now = self._final.ramped(0) if ramps else self._final
        self.push = 0.0

    @property
    def value(self) -> float:
        """The price that gates read, or the middle one of a range."""
        return self.now.middle

    @property
    def charged(self) -> PriceRange:
        """The prices of rewards."""
        return PriceRange(self.now.low + self.push, self.now.high + self.push)

    def ramp(self, progress: float) -> None:
        """Without a target: follow the schedule to ``progress`` (in [0, 1]) of the ramp."""
        if self.target is None:
            self.now = self._final.ramped(scheduled(self.config.price_schedule, progress))

    def learn(self, share: float, progress: float, last: bool = False) -> None:
        """With a target: raise the price if an update's mean ``share`` of dense MACs is too large; lower it if not.

        A proportional-integral controller. The share answers a price only after many updates, so the integral alone
        would swing around the target; the proportional part, which ends with the overspending, stops it in time. For
        ``lagrangian`` it is dual ascent: the integral alone, towards the final target from the start.

        Args:
            share: what the update's rollouts spent.
            progress: how far the ramp has come, in [0, 1].
            last: whether the price is settled from now on.
        """
        if self.target is None:
            return
        aim = self.target if self._dual else 1 + (self.target - 1) * scheduled(self.config.price_schedule, progress)
        push = self.config.price_rate * (share - aim)
        price = max(0.0, self.now.low + push / self._updates)
        self.now = PriceRange(price, price)
        self.push = 0.0 if last or self._dual else max(-price, push)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """A price to read for each of this process's ``count`` images, (count,); random only in a range."""
        if self.now.is_one:
            return torch.full((count,), self.now.low, device=generator.device)
        return self.now.at(rand_rows((count,), generator, generator.device))

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"low": self.now.low, "high": self.now.high, "push": self.push}

    def restore(self, state: dict[str, Any]) -> None:
        """From a checkpoint."""
        self.now, self.push = PriceRange(state["low"], state["high"]), state["push"]
