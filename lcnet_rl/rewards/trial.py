"""What a shape is like, found by trying it at a grid of points: whether it is one, and what may be done with it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from lcnet_rl.errors import UserError
from lcnet_rl.rewards.judgement import Judgement
from lcnet_rl.rewards.shapes import Reward

MOST = 1.2
"""The largest share of dense MACs that is tried: whoever keeps everything pays for the gates on top."""
PREDICTIONS = (
    (1.0, 0.0, 1.0),
    (1.0, -0.05, 0.95),
    (1.0, -0.7, 0.5),
    (1.0, -4.0, 0.02),
    (0.0, -0.7, 0.5),
    (0.0, -4.0, 0.5),
    (0.0, -20.0, 1.0),
)
"""(correct, log_prob, confidence); in float32 the log-probability of a sure prediction is 0, not nearly."""
PRICES = (0.0, 0.3, 2.0, 10.0)


def check_reward(name: str, reward: Reward) -> None:
    """Refuse what is no shape.

    Raises:
        UserError: when it fails, returns anything but one finite float an image, rises with compute, or is not what
            ``pays_by_step`` and ``has_potential`` say.
    """
    try:
        tried = list(_tried(reward))
        reward.potential(torch.tensor([log_prob for _, log_prob, _ in PREDICTIONS]))
    except UserError:
        raise
    except Exception as error:  # whatever a user's function can raise
        raise UserError(f"reward {name} failed: {type(error).__name__}: {error}") from error
    for price, shares, values in tried:
        rises = values.diff() > 1e-6 * values[1:].abs().clamp(min=1)
        if bool(rises.any()):
            share = float(shares[1:][rises][0])
            raise UserError(f"reward {name} rises with compute at a share of {share:.1f} (price {price}); it must not")
        if reward.pays_by_step and not _linear(price, shares, values):
            raise UserError(
                f"reward {name} says that it pays by step, but at price {price} it is not task - price * share; "
                "leave pays_by_step at False"
            )
    if type(reward).potential is not Reward.potential and not reward.has_potential:
        raise UserError(f"reward {name} has a potential, but does not say so: add has_potential = True to the class")


def is_linear(reward: Reward) -> bool:
    """Whether a reward is ``task - price * share``, so that it could pay by step."""
    return all(_linear(*tried) for tried in _tried(reward))


def is_smooth(reward: Reward) -> bool:
    """Whether a reward has a gradient with respect to what is judged, as a first-order control variate needs."""
    parts = (torch.full((1,), value, requires_grad=True) for value in (0.5, -0.7, 0.5))
    try:
        return reward(Judgement(*parts), torch.full((1,), 0.5), torch.ones(1)).requires_grad
    except RuntimeError:  # torch's, of a reward that numpy computes
        return False


def price_matters(reward: Reward, share: float = MOST) -> bool:
    """Whether the price changes what it costs to spend ``share`` of the dense MACs instead of none."""
    shares = torch.tensor([0.0, share])
    for prediction in PREDICTIONS:
        costs = [-float(_at(reward, prediction, price, shares).diff()) for price in PRICES]
        if max(costs) - min(costs) > 1e-6 * max(1.0, max(costs)):
            return True
    return False


def _tried(reward: Reward) -> Iterator[tuple[float, Tensor, Tensor]]:
    """(price, shares, values) of the grid; shares and values are (13,)."""
    shares = torch.linspace(0, MOST, 13)
    for prediction, price in itertools.product(PREDICTIONS, PRICES):
        yield price, shares, _at(reward, prediction, price, shares)


def _at(reward: Reward, prediction: tuple[float, float, float], price: float, shares: Tensor) -> Tensor:
    judged = Judgement(*(torch.full_like(shares, value) for value in prediction))
    return reward(judged, shares, torch.full_like(shares, price))


def _linear(price: float, shares: Tensor, values: Tensor) -> bool:
    return torch.allclose(values.float(), values[0].float() - price * shares, atol=1e-4)
