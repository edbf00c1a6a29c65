"""Sampled passes through the network, with everything that a policy-gradient estimate needs of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from agents.deciders import Chooser
from lcnet_rl.model import LCNet
from lcnet_rl.observation import Observation
from lcnet_rl.rewards import Reward, check_slopes, free_reward, judge, smoothed
from lcnet_rl.state import State


@dataclass(frozen=True)
class Rollout:
    """K passes over B images with decisions drawn from the policy; T blocks, A bits an action."""

    logits: Tensor
    """(K, B, classes), with gradients through the executed path."""
    probe_logits: Tensor
    """(T, K, B, classes), with gradients to the probes."""
    actions: Tensor
    """(T, K, B, A), 0 or 1."""
    probabilities: Tensor
    """(T, K, B, A), keep probabilities the actions were drawn with, with gradients to the policy."""
    consulted: Tensor
    """(T, K, B, A), 1 where the gate was asked: C-Net's bits count only where L-Net kept the block."""
    costs: Tensor
    """(T, K, B), share of dense MACs that each step spent."""
    expected_costs: Tensor
    """(T, K, B), the same in expectation over the step's own decisions, with gradients to the policy."""
    shares: Tensor
    """(K, B), all of the bill as a share of dense MACs."""


def keep_probabilities(model: LCNet, observation: Observation, bound: float) -> Tensor:
    """The exploring policy: keep probabilities (B, A), squeezed into [bound, 1 - bound] so that none is certain."""
    return bound + (1 - 2 * bound) * model.policy_logits(observation).sigmoid()


def repeat_state(state: State, times: int) -> State:
    """The same images ``times`` times over, copy after copy, so that the stem runs only once for all rollouts."""
    if times == 1:
        return state
    return replace(
        state,
        features=torch.cat([state.features] * times),  # unlike repeat, keeps the channels-last layout, and so the speed
        pooled=state.pooled.repeat(times, 1),
        spent=state.spent.repeat(times),
        price=state.price.repeat(times),
        memory=None if state.memory is None else state.memory.repeat(times, 1),
        images=None if state.images is None else state.images.repeat(times, 1, 1, 1),
    )


def sample(
    model: LCNet, images: Tensor, price: float | Tensor, rollouts: int, bound: float, decide: Chooser
) -> Rollout:
    """Run every image ``rollouts`` times, letting ``decide`` make decisions of the policy's keep probabilities.

    Args:
        model: in the mode (train or eval) that is wanted.
        images: uint8 (B, 3, 32, 32).
        price: of compute, as the policy sees it, a number or (B,).
        rollouts: K.
        bound: keep probabilities stay in [bound, 1 - bound].
        decide: makes actions (K * B, A), copy after copy of the images; ``drawn`` samples from the policy.
    """
    state = repeat_state(model.begin(images, price), rollouts)
    probe_logits, actions, probabilities, consulted, costs, expected = [], [], [], [], [], []
    for t in range(model.depth):
        observation = model.observe(state)
        p = keep_probabilities(model, observation, bound)
        action = decide(p, observation)
        state = model.advance(state, action)
        probe_logits.append(observation.probe_logits)
        actions.append(action)
        probabilities.append(p)
        consulted.append(model.decisions.consulted(action, t))
        costs.append((model.decisions.bill(action.detach(), t) / model.costs.dense).float())
        expected.append((model.decisions.bill(p, t) / model.costs.dense).float())

    def folded(parts: list[Tensor]) -> Tensor:
        return torch.stack(parts).unflatten(1, (rollouts, -1))

    return Rollout(
        logits=model.classify(state).unflatten(0, (rollouts, -1)),
        probe_logits=folded(probe_logits),
        actions=folded(actions),
        probabilities=folded(probabilities),
        consulted=folded(consulted),
        costs=folded(costs),
        expected_costs=folded(expected),
        shares=(model.total_macs(state).detach() / model.costs.dense).float().unflatten(0, (rollouts, -1)),
    )


@dataclass(frozen=True)
class MeanField:
    """One pass with keep probabilities in place of decisions: a smooth network that approximates the average one."""

    slopes: Tensor
    """(T, B, A), derivative of the reward's task part with respect to each bit, given that its gate is asked."""
    worth: Tensor
    """(B,), the reward, smoothed: of shapes that pay by step without the cost, of others at the expected bill."""
    costs: Tensor
    """(T, B), expected share of dense MACs of each step."""
    potentials: Tensor
    """(T, B), the reward's potential before each step."""


def mean_field(
    model: LCNet,
    images: Tensor,
    labels: Tensor,
    price: float | Tensor,
    reward: Reward,
    bound: float,
    charged: float | Tensor | None = None,
) -> MeanField:
    """First-order knowledge of what each decision is worth, for the control variate of MuProp and Q-Prop.

    Gu et al., 2016, "MuProp: unbiased backpropagation for stochastic neural networks", equation 4: the linear
    part of the reward around the mean-field path has a known gradient, so only what it leaves needs sampling. Weights
    get no gradient here, and BatchNorm's running statistics are left alone.

    Args:
        model: as for ``sample``.
        images: uint8 (B, 3, 32, 32).
        labels: (B,).
        price: of compute, as the policy sees it, a number or (B,).
        reward: whose smooth task is differentiated.
        bound: as for ``sample``.
        charged: the reward's price, where the policy sees another.

    Raises:
        UserError: for a reward whose task has a slope that is not finite.
    """
    with model.statistics_frozen(), torch.enable_grad():
        state = model.begin(images, price)
        probabilities, costs, potentials = [], [], []
        for t in range(model.depth):
            observation = model.observe(state)
            p = keep_probabilities(model, observation, bound).detach().requires_grad_()
            probabilities.append(p)
            potentials.append(potential(reward, observation.probe_logits, labels))
            costs.append((model.decisions.bill(p.detach(), t) / model.costs.dense).float())
            state = model.advance(state, p)
        judged = smoothed(judge(model.classify(state), labels))
        task = free_reward(reward, judged)
        check_slopes(reward, task, judged)
        slopes = torch.stack(torch.autograd.grad(task.sum(), probabilities))
    if model.decisions.has_l_net and model.decisions.has_c_net:
        # A filter's slope on this path is scaled by its block's keep probability; where C-Net is asked, that is 1.
        keep = torch.stack(probabilities).detach()[..., :1].clamp(min=0.05)
        slopes = torch.cat((slopes[..., :1], slopes[..., 1:] / keep), -1)
    expected = torch.stack(costs)
    shares = expected.sum(0) + model.costs.fixed / model.costs.dense
    if reward.pays_by_step:
        shares = torch.zeros_like(shares)
    worth = reward(judged, shares, state.price if charged is None else torch.as_tensor(charged)).detach()
    return MeanField(slopes, worth, expected, torch.stack(potentials))


def potential(reward: Reward, probe_logits: Tensor, labels: Tensor) -> Tensor:
    """The reward's potential of states, (..., B), from their probes' logits (..., B, classes); without gradients."""
    if not reward.has_potential:
        return probe_logits.new_zeros(probe_logits.shape[:-1])
    return reward.potential(judge(probe_logits.detach(), labels).log_prob)
