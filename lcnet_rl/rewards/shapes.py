"""Reward shapes: pure functions of how right a prediction was, what share of compute it took, and the price.

The share is that of the dense model's MACs, gates included, so it can pass 1. At equal correctness no reward rises with
compute. Unless a shape says otherwise, a reward lies between ``-price * share`` and ``1 - price * share``.

To add one here: a frozen dataclass, and its name in ``lcnet_rl.rewards.registry``, which also tells how to use one's
own without touching either.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from lcnet_rl.rewards.judgement import Judgement
from lcnet_rl.rewards.values import checked_call, checked_potential


class Reward(ABC):
    """A reward shape; all tensors are of one shape, one number an image, float.

    An image's number depends on that image alone, and is finite for shares from 0 to 2.5 (``values.MOST``). What a
    subclass returns is checked at every call; its arguments are copies, and its to change.
    """

    pays_by_step: ClassVar[bool] = False
    """Whether the reward is ``task - price * share``: then every step pays for its own MACs as they are spent, and the
    expected cost has an exact gradient. Otherwise all of the cost comes with the last step."""
    has_potential: ClassVar[bool] = False
    """Whether ``potential`` is not zero."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name, checked in (("__call__", checked_call), ("potential", checked_potential)):
            if inspect.isfunction(own := vars(cls).get(name)):
                setattr(cls, name, checked(own))

    @abstractmethod
    def __call__(self, judged: Judgement, share: Tensor, price: Tensor) -> Tensor:
        """The episode's reward, but for its potential.

        Args:
            judged: the prediction.
            share: MACs spent as a share of the dense model's.
            price: reward lost by spending the dense MACs once.
        """

    def potential(self, log_prob: Tensor) -> Tensor:
        """Potential of a state from what its probe says, the log-probability of the label in nats.

        Step t is rewarded by ``potential(t + 1) - potential(t)`` on top, with 0 after the last step: that takes back
        what the steps before have added, and an episode's return is less by the first state's potential, which no
        decision can change.
        """
        return torch.zeros_like(log_prob)


def smoothed(judged: Judgement) -> Judgement:
    """A differentiable stand-in: correctness becomes the label's probability, its mean were predictions sampled."""
    return replace(judged, correct=judged.log_prob.exp())


def free_reward(reward: Reward, judged: Judgement) -> Tensor:
    """The reward where compute is free and none was spent."""
    zero = torch.zeros_like(judged.log_prob)
    return reward(judged, zero, zero)


@dataclass(frozen=True)
class Linear(Reward):
    """``correct - price * share``."""

    pays_by_step: ClassVar[bool] = True

    def __call__(self, judged: Judgement, share: Tensor, price: Tensor) -> Tensor:
        """See ``Reward``."""
        return judged.correct - price * share


@dataclass(frozen=True)
class Quadratic(Reward):
    """``1 - price * share^2`` for a right prediction, ``-penalty`` for a wrong one, whatever it cost.

    BlockDrop's reward (Wu et al., 2018, equation 2), there with the share of blocks and price 1.
    """

    penalty: float = 1.0

    def __call__(self, judged: Judgement, share: Tensor, price: Tensor) -> Tensor:
        """See ``Reward``."""
        return judged.correct * (1 - price * share.square()) - (1 - judged.correct) * self.penalty


@dataclass(frozen=True)
class Confidence(Reward):
    """``max(log_prob, -floor) - price * share``, in nats: a denser signal than right or wrong; from ``-floor`` to 0."""

    floor: float = 5.0
    pays_by_step: ClassVar[bool] = True

    def __call__(self, judged: Judgement, share: Tensor, price: Tensor) -> Tensor:
        """See ``Reward``."""
        return judged.log_prob.clamp(min=-self.floor) - price * share


@dataclass(frozen=True)
class ConfidenceGain(Reward):
    """The gain in the label's probability, step by step, minus ``price * share``.

    Before the last step the probability is a block's linear probe's, at the end the head's. The gains add up to the
    head's probability but for the first probe's, which no decision can change: it is the probability as a reward, with
    the probes as potential.
    """

    pays_by_step: ClassVar[bool] = True
    has_potential: ClassVar[bool] = True

    def __call__(self, judged: Judgement, share: Tensor, price: Tensor) -> Tensor:
        """See ``Reward``."""
        return judged.log_prob.exp() - price * share

    def potential(self, log_prob: Tensor) -> Tensor:
        """See ``Reward``."""
        return log_prob.exp()


@dataclass(frozen=True)
class Potential(Reward):
    """``linear`` with ``weight`` times the probe's probability of the label as potential.

    Potential-based shaping (Ng, Harada and Russell, 1999, theorem 1): it tells early whether a decision helped, and
    leaves the best decisions as they are. An episode's return is that of ``linear`` minus the first probe's potential.
    """

    weight: float = 1.0
    pays_by_step: ClassVar[bool] = True
    has_potential: ClassVar[bool] = True

    def __call__(self, judged: Judgement, share: Tensor, price: Tensor) -> Tensor:
        """See ``Reward``."""
        return judged.correct - price * share

    def potential(self, log_prob: Tensor) -> Tensor:
        """See ``Reward``."""
        return self.weight * log_prob.exp()


@dataclass(frozen=True)
class Budget(Reward):
    """``correct - price * max(0, share - target)``: a hinge, compute is free up to ``target`` of the dense MACs.

    From ``-price * max(0, share - target)`` to 1 more.
    """

    target: float = 0.6

    def __call__(self, judged: Judgement, share: Tensor, price: Tensor) -> Tensor:
        """See ``Reward``."""
        return judged.correct - price * (share - self.target).clamp(min=0)


@dataclass(frozen=True)
class Lagrangian(Reward):
    """``correct - price * (share - target)``, with the price as a dual variable that the agent moves by itself.

    The Lagrangian of "as many right as possible at a mean share of at most ``target``". The price climbs while the mean
    share is above the target and falls while it is below, not under 0: dual ascent, as in Tessler, Mankowitz, Mannor,
    2018, "Reward constrained policy optimization". From ``-price * (share - target)`` to 1 more.
    """

    target: float = 0.6
    pays_by_step: ClassVar[bool] = True

    def __call__(self, judged: Judgement, share: Tensor, price: Tensor) -> Tensor:
        """See ``Reward``."""
        return judged.correct - price * (share - self.target)


@dataclass(frozen=True)
class Asymmetric(Reward):
    """``linear`` with a penalty for mistakes, from ``unsure`` to ``sure`` by how confident the mistake was.

    ``correct - (1 - correct) * (unsure * (1 - confidence) + sure * confidence) - price * share``; from ``-sure`` to 1
    before the cost. A policy trained with it should spend where it would otherwise be confidently wrong.
    """

    sure: float = 1.0
    unsure: float = 0.0
    pays_by_step: ClassVar[bool] = True

    def __call__(self, judged: Judgement, share: Tensor, price: Tensor) -> Tensor:
        """See ``Reward``."""
        penalty = self.unsure + (self.sure - self.unsure) * judged.confidence
        return judged.correct - (1 - judged.correct) * penalty - price * share
