"""What a shape is like, found by trying it at a grid of points: whether it is one, and what may be done with it.

The grid is every prediction of ``_predictions`` at every one of ``PRICES`` and ``SHARES``, in one batch.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable

import torch
from torch import Tensor

from lcnet_rl.errors import UserError
from lcnet_rl.rewards.judgement import Judgement
from lcnet_rl.rewards.shapes import Reward, free_reward, smoothed
from lcnet_rl.rewards.values import MOST, off_line, slopes

PRICES = (0.0, 0.03, 0.1, 0.3, 1.0, 2.0, 5.0, 10.0, 30.0)
SHARES = (*(percent / 100 for percent in range(121)), 1.5, 2.0, MOST)
LEAST = math.exp(-20)
"""The smallest probability of a label that is tried."""


def check_reward(name: str, reward: Reward) -> None:
    """Refuse what is no shape.

    Raises:
        UserError: when it fails, returns anything but one finite float an image that depends on that image alone, rises
            with compute, or is not what ``pays_by_step`` and ``has_potential`` say.
    """
    judged, share, price = _points()
    log_prob = _predictions().log_prob
    try:
        values = reward(judged, share, price)
        if not torch.equal(values, reward(judged, share, price)):
            raise UserError(f"reward {name} is random: of the same arguments it must make the same numbers")
        _check_alone(f"reward {name}", values, lambda one: reward(judged[one], share[one], price[one]))
        potentials = reward.potential(log_prob)
        _check_alone(f"the potential of reward {name}", potentials, lambda one: reward.potential(log_prob[one]))
    except UserError:
        raise
    except Exception as error:  # whatever a user's function can raise
        raise UserError(f"reward {name} failed: {type(error).__name__}: {error}") from error
    series = values.view(-1, len(SHARES))
    rises = series.diff() > 1e-6 * series[:, 1:].abs().clamp(min=1)
    if bool(rises.any()):
        row, step = rises.nonzero()[0].tolist()
        at, cost = SHARES[step + 1], PRICES[row % len(PRICES)]
        raise UserError(f"reward {name} rises with compute at a share of {at:g} (price {cost:g}); it must not")
    if type(reward).potential is not Reward.potential and not reward.has_potential:
        raise UserError(f"reward {name} has a potential, but does not say so: add has_potential = True to the class")


def is_linear(reward: Reward) -> bool:
    """Whether a reward is ``task - price * share``, so that it could pay by step."""
    judged, share, price = _points()
    values = reward(judged, share, price)
    free = reward(judged, torch.zeros_like(share), price)
    return not bool(off_line(values - free, price * share, values.abs() + free.abs()).any())


def is_smooth(reward: Reward) -> bool:
    """Whether a reward has finite slopes by what is judged, as a first-order control variate needs."""
    seen = _predictions().clone()
    judged = smoothed(Judgement(seen.correct, seen.log_prob.requires_grad_(), seen.confidence.requires_grad_()))
    try:
        task = free_reward(reward, judged)
    except RuntimeError:  # torch's, of a reward that numpy computes
        return False
    return task.requires_grad and all(bool(slope.isfinite().all()) for slope in slopes(task, judged).values())


def price_matters(reward: Reward, share: float = MOST) -> bool:
    """Whether the price changes what it costs to spend ``share`` of the dense MACs instead of none."""
    once = slice(None, None, len(SHARES))  # every prediction at every price
    judged, price = _points()[0][once], _points()[2][once]
    nothing = torch.zeros_like(price)
    costs = reward(judged, nothing, price) - reward(judged, torch.full_like(price, share), price)
    costs = costs.view(-1, len(PRICES))
    most = costs.amax(1)
    return bool((most - costs.amin(1) > 1e-6 * most.clamp(min=1)).any())


@functools.cache
def _predictions() -> Judgement:
    """Right ones and wrong ones of all confidences, some of them random; shape (160,).

    A wrong one's label has what the predicted class leaves, or a tenth of it, or next to nothing. In float32 the
    log-probability of a sure prediction is 0, not nearly.
    """
    others = 0.02 + 0.98 * torch.rand(20, generator=torch.Generator().manual_seed(0))
    confidence = torch.cat((torch.linspace(1, 0.05, 20), others))
    left = torch.minimum(confidence, 1 - confidence)
    labels = [confidence, *(left * share for share in (1.0, 0.1, 0.0))]
    correct = [torch.full_like(confidence, float(label is confidence)) for label in labels]
    return Judgement(torch.cat(correct), torch.cat(labels).clamp(min=LEAST).log(), confidence.repeat(len(labels)))


@functools.cache
def _points() -> tuple[Judgement, Tensor, Tensor]:
    """Predictions, shares and prices of the grid, in this order the slowest, fastest and middle to change; 1-D."""
    seen, prices, shares = _predictions(), torch.tensor(PRICES), torch.tensor(SHARES)
    each = len(PRICES) * len(SHARES)
    judged = Judgement(*(part.repeat_interleave(each) for part in vars(seen).values()))
    count = len(seen.correct)
    return judged, shares.repeat(count * len(PRICES)), prices.repeat_interleave(len(SHARES)).repeat(count)


def _check_alone(what: str, values: Tensor, alone: Callable[[slice], Tensor]) -> None:
    """Refuse a shape that says something else of an image where it is the only one.

    Args:
        what: returned the values, for the message.
        values: of all images together, (N,).
        alone: the same of one image, as a slice.

    Raises:
        UserError: with both numbers.
    """
    for image in random.Random(0).sample(range(len(values)), 5):
        try:
            together, single = float(values[image]), float(alone(slice(image, image + 1)))
        except UserError as error:
            raise UserError(f"{what} mixes the images of a batch, or cannot take a single one: {error}") from error
        if not math.isclose(single, together, rel_tol=1e-4, abs_tol=1e-5):
            raise UserError(
                f"{what} mixes the images of a batch: it returned {together:g} for an image among others and "
                f"{single:g} for the same image alone"
            )
