"""Reward shapes: what a classified image was worth, given what it cost. Pure functions, looked up by name.

A shape sees whether the prediction was right, the log-probability of the true class, the share of the dense model's
MACs that was spent (gates included, so it can pass 1), and the price of spending all of them once. At equal
correctness no reward rises with compute.

To add one: write a frozen dataclass with the members of ``Reward`` and put it into ``REWARDS``.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from lcnet_rl.errors import UserError, unknown_name


class Reward(Protocol):
    """A reward shape; all tensors are (B,), float."""

    pays_by_step: ClassVar[bool]
    """Whether the reward is ``task - price * share``: then every step pays for its own MACs as they are spent, and the
    expected cost has an exact gradient. Otherwise all of the reward comes with the last step."""

    def __call__(self, correct: Tensor, log_prob: Tensor, share: Tensor, price: Tensor) -> Tensor:
        """The episode's reward.

        Args:
            correct: 1 where the prediction is the label, else 0.
            log_prob: log-probability of the label, in nats.
            share: MACs spent as a share of the dense model's.
            price: reward lost by spending the dense MACs once.
        """
        ...

    def smooth_task(self, log_prob: Tensor) -> Tensor:
        """A differentiable stand-in for the reward without its cost, for the first-order control variate."""
        ...


@dataclass(frozen=True)
class Linear:
    """``correct - price * share``."""

    pays_by_step: ClassVar[bool] = True

    def __call__(self, correct: Tensor, log_prob: Tensor, share: Tensor, price: Tensor) -> Tensor:
        """See ``Reward``."""
        return correct - price * share

    def smooth_task(self, log_prob: Tensor) -> Tensor:
        """The probability of the label, which is the expected correctness of a sampled prediction."""
        return log_prob.exp()


@dataclass(frozen=True)
class Quadratic:
    """``1 - price * share^2`` for a right prediction, ``-penalty`` for a wrong one, whatever it cost.

    BlockDrop's reward (Wu et al., 2018, equation 2), there with the share of blocks and price 1.
    """

    penalty: float = 1.0
    pays_by_step: ClassVar[bool] = False

    def __call__(self, correct: Tensor, log_prob: Tensor, share: Tensor, price: Tensor) -> Tensor:
        """See ``Reward``."""
        return correct * (1 - price * share.square()) - (1 - correct) * self.penalty

    def smooth_task(self, log_prob: Tensor) -> Tensor:
        """The reward without cost at the probability of the label."""
        return (1 + self.penalty) * log_prob.exp() - self.penalty


@dataclass(frozen=True)
class Confidence:
    """``max(log_prob, -floor) - price * share``, in nats: a denser signal than right or wrong."""

    floor: float = 5.0
    pays_by_step: ClassVar[bool] = True

    def __call__(self, correct: Tensor, log_prob: Tensor, share: Tensor, price: Tensor) -> Tensor:
        """See ``Reward``."""
        return log_prob.clamp(min=-self.floor) - price * share

    def smooth_task(self, log_prob: Tensor) -> Tensor:
        """The task part itself."""
        return log_prob.clamp(min=-self.floor)


def check_price(price: float) -> float:
    """``price`` as a float.

    Raises:
        UserError: when it is negative or no finite number.
    """
    if not 0 <= price < math.inf:
        raise UserError(f"price must be >= 0 (0 = compute is free), got {price}")
    return float(price)


REWARDS: dict[str, type] = {"linear": Linear, "quadratic": Quadratic, "confidence": Confidence}


def create_reward(text: str) -> Reward:
    """A reward shape from its name and, if any, its parameters: ``"linear"``, ``"quadratic:penalty=0.5"``.

    Raises:
        UserError: for an unknown name or parameter, or a value that is negative or no number.
    """
    name, _, arguments = text.partition(":")
    if name not in REWARDS:
        raise unknown_name("reward", name, REWARDS)
    shape = REWARDS[name]
    known = [field.name for field in dataclasses.fields(shape)]
    parameters = {}
    for argument in filter(None, arguments.split(",")):
        key, _, value = argument.partition("=")
        if key not in known:
            raise unknown_name(f"parameter of reward {name}", key, known or ["none"])
        try:
            parameters[key] = float(value)
        except ValueError as error:
            raise UserError(f"reward {name}: {key} must be a number, got {value!r}") from error
        if not 0 <= parameters[key] < math.inf:
            raise UserError(f"reward {name}: {key} must be >= 0, got {value}")
    return shape(**parameters)


def judge(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """What the shapes want to know of a prediction.

    Args:
        logits: (B, classes).
        labels: (B,), int64.

    Returns:
        Whether it is right, (B,) of 0 and 1, and the log-probability of the label, (B,); both float32.
    """
    log_probs = torch.log_softmax(logits.float(), 1)
    return (logits.argmax(1) == labels).float(), log_probs.gather(1, labels[:, None])[:, 0]
