"""Policy-gradient estimators for keep decisions, as losses whose gradient is the (negated) estimate.

The policy's value is J = E[task reward - price * sum of costs]. Decisions are Bernoulli, costs are known and
additive, and every image can be run several times: each fact removes variance without bias. A shape's potential adds
steps that telescope: it moves rewards to earlier steps and leaves the gradient as it is (Ng et al., 1999).

    dJ = E[ sum_t dlog pi(a_t | s_t) * (G_t - baseline - linear part) + d(linear part) - price * d(expected cost) ]

with G_t the rewards from step t on. ``tests/test_agents_estimators.py`` compares it with the exact gradient, by
enumerating all decisions of a small network whose BatchNorm is fixed.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from agents.rollout import MeanField, Rollout, potential
from lcnet_rl.distributed import global_mean, global_sum, shards
from lcnet_rl.rewards import Reward, judge

Baseline = Literal["leave-one-out", "batch-mean", "self-critical", "mean-field"]
CostGradient = Literal["exact", "sampled"]
ControlVariate = Literal["none", "first-order"]


def leave_one_out(returns: Tensor) -> Tensor:
    """Advantage of each rollout over the mean of the image's other rollouts.

    Unbiased, and needs no critic (Kool et al., 2019, "Buy 4 REINFORCE samples, get a baseline for free").

    Args:
        returns: shape (..., rollouts, images), dimensionless; rollouts >= 2.

    Returns:
        The same shape.

    Raises:
        ValueError: with fewer than two rollouts there is no other rollout to compare with.
    """
    rollouts = returns.shape[-2]
    if rollouts < 2:
        raise ValueError(f"leave_one_out needs at least 2 rollouts an image, got {rollouts}")
    return (returns - returns.mean(-2, keepdim=True)) * rollouts / (rollouts - 1)


def batch_mean(returns: Tensor) -> Tensor:
    """Advantage over the mean of the batch's other passes, (..., rollouts, images); unbiased, as its own is out."""
    passes = returns.shape[-2] * returns.shape[-1] * shards()
    if passes < 2:
        raise ValueError("batch_mean needs at least 2 passes in the batch")
    return (returns - global_mean(returns.mean((-2, -1), keepdim=True))) * passes / (passes - 1)


def bernoulli_entropy(probabilities: Tensor) -> Tensor:
    """Entropy of each decision in nats, both of its terms, -p log p - (1 - p) log(1 - p); of the argument's shape."""
    p = probabilities.clamp(1e-6, 1 - 1e-6)
    return -(p * p.log() + (1 - p) * (1 - p).log())


def log_likelihood(rollout: Rollout) -> Tensor:
    """Log-probability of each step's decisions, (T, K, B), over the gates that were asked."""
    p = rollout.probabilities.clamp(1e-6, 1 - 1e-6)
    each = torch.where(rollout.actions > 0, p.log(), (1 - p).log())
    return (each * rollout.consulted).sum(-1)


def policy_entropy(rollout: Rollout) -> Tensor:
    """Mean entropy of a decision, in nats, over all gates that were asked; a scalar."""
    entropy = (bernoulli_entropy(rollout.probabilities) * rollout.consulted).sum()
    return global_sum(entropy) / global_sum(rollout.consulted.sum()).clamp(min=1)


def decision_information(rollout: Rollout) -> Tensor:
    """Mutual information between image and decision, H(mean p) - mean H(p), in nats a decision; a scalar.

    0 when every image gets the same probabilities. As a bonus it works against one decision for all images. What else
    the gates read counts as the image here: its price, of a range, and what its own rollout has spent so far.
    """
    p = rollout.probabilities
    count = global_sum(rollout.consulted.sum((1, 2)))
    weight = count.clamp(min=1)
    marginal = global_sum((p * rollout.consulted).sum((1, 2))) / weight
    conditional = global_sum((bernoulli_entropy(p) * rollout.consulted).sum((1, 2))) / weight
    asked = (count > 0).float()
    return ((bernoulli_entropy(marginal) - conditional) * asked).sum() / asked.sum().clamp(min=1)


def returns_to_go(rollout: Rollout, labels: Tensor, price: Tensor, reward: Reward, exact: bool) -> Tensor:
    """Rewards that a step's decisions can still change.

    Args:
        rollout: K passes over B images.
        labels: (B,).
        price: reward lost by spending the dense MACs once, a scalar or (B,).
        reward: the shape.
        exact: whether costs are expected ones and a step's own is left out, or sampled ones with the step's own.

    Returns:
        (T, K, B), without gradients.
    """
    judged = judge(rollout.logits.detach(), labels)
    potentials = potential(reward, rollout.probe_logits, labels)
    if not reward.pays_by_step:
        return reward(judged, rollout.shares, price.expand_as(rollout.shares)) - potentials
    costs = rollout.expected_costs.detach() if exact else rollout.costs
    task = reward(judged, torch.zeros_like(rollout.shares), price.expand_as(rollout.shares))
    return task - price * to_come(costs, own=not exact) - potentials


def to_come(costs: Tensor, own: bool) -> Tensor:
    """Sum of the costs from each step on, (T, ...) to (T, ...); with the step's ``own`` or only those after it."""
    sums = costs.flip(0).cumsum(0).flip(0)
    return sums if own else sums - costs


def policy_loss(
    rollout: Rollout,
    labels: Tensor,
    price: float | Tensor,
    reward: Reward,
    baseline: Baseline = "leave-one-out",
    cost_gradient: CostGradient = "exact",
    field: MeanField | None = None,
    greedy: Rollout | None = None,
    control_variate: ControlVariate = "none",
) -> Tensor:
    """A scalar whose gradient, over many rollouts, is minus the gradient of the mean reward.

    Args:
        rollout: K passes over B images.
        labels: (B,).
        price: reward lost by spending the dense MACs once, a number or (B,).
        reward: the shape; ``exact`` needs one with ``pays_by_step``.
        baseline: what a return is compared with: the image's other rollouts, the batch, the greedy pass, or the
            mean-field pass.
        cost_gradient: differentiate each step's expected cost, or reinforce its sampled one.
        field: the mean-field pass, where baseline or control variate needs it.
        greedy: the greedy pass (K = 1), for ``self-critical``.
        control_variate: ``first-order`` splits off the reward's linear part around the mean-field path.

    Raises:
        ValueError: for ``exact`` with a reward that does not pay by step, whose costs would count twice.
    """
    exact = cost_gradient == "exact"
    if exact and not reward.pays_by_step:
        raise ValueError("a reward that does not pay by step needs cost_gradient='sampled'")
    price = torch.as_tensor(price, dtype=torch.float32, device=labels.device)
    returns = returns_to_go(rollout, labels, price, reward, exact)
    smooth = torch.zeros_like(returns[0])
    if control_variate == "first-order":
        assert field is not None
        slopes = field.slopes[:, None] * rollout.consulted
        returns = returns - (slopes * (rollout.actions - rollout.probabilities.detach())).sum((0, 3))
        smooth = (slopes * rollout.probabilities).sum((0, 3))
    if baseline == "leave-one-out":
        advantages = leave_one_out(returns)
    elif baseline == "batch-mean":
        advantages = batch_mean(returns)
    elif baseline == "self-critical":
        assert greedy is not None
        advantages = returns - returns_to_go(greedy, labels, price, reward, exact)
    else:
        assert field is not None
        expected = field.worth - field.potentials
        if reward.pays_by_step:
            expected = expected - price * to_come(field.costs, own=not exact)
        advantages = returns - expected[:, None]
    loss = -(log_likelihood(rollout) * advantages).sum(0) - smooth
    if exact:
        loss = loss + price * rollout.expected_costs.sum(0)
    return loss.mean()
