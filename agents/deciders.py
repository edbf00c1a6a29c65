"""What decides in a training's passes: by the policy's keep probabilities, or whatever they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from lcnet_rl.distributed import rand_rows
from lcnet_rl.observation import Observation

Chooser: TypeAlias = Callable[[Tensor, Observation], Tensor]
"""Makes an action (B, A), 1 = keep, of keep probabilities (B, A), which carry their gradient, and the observation."""


def drawn(generator: torch.Generator | None, rollouts: int = 1) -> Chooser:
    """Decisions drawn from their probabilities.

    Args:
        generator: of the draws.
        rollouts: how many copies of the images the rows are, copy after copy.
    """

    def decide(probabilities: Tensor, observation: Observation) -> Tensor:
        return (rand_rows(probabilities.shape, generator, probabilities.device, rollouts) < probabilities).float()

    return decide


def greedy_keeps(probabilities: Tensor, observation: Observation) -> Tensor:
    """Keep iff the probability exceeds 1/2: (B, A) to (B, A)."""
    return (probabilities > 0.5).float()


def random_keeps(lowest: float, generator: torch.Generator) -> Chooser:
    """Decisions that ignore the policy: each image has one keep rate for all its bits, uniform in [lowest, 1]."""
    rates: list[Tensor] = []

    def decide(probabilities: Tensor, observation: Observation) -> Tensor:
        if observation.block == 0:
            draw = rand_rows((len(probabilities), 1), generator, probabilities.device)
            rates[:] = [lowest + (1 - lowest) * draw]
        draws = rand_rows(probabilities.shape, generator, probabilities.device)
        return (draws < rates[0]).float()

    return decide


def straight_through(hard: Tensor, soft: Tensor) -> Tensor:
    """``hard`` forwards, the gradient of ``soft`` backwards (Bengio et al., 2013, "Estimating or propagating gradients
    through stochastic neurons for conditional computation"); all of one shape."""
    return hard + (soft - soft.detach())


def rounded(probabilities: Tensor, observation: Observation) -> Tensor:
    """Keep iff the probability exceeds 1/2, with the probability's gradient: (B, A) to (B, A)."""
    return straight_through((probabilities.detach() > 0.5).float(), probabilities)


def gumbel(generator: torch.Generator, temperature: float) -> Chooser:
    """Decisions drawn from their probabilities, with the gradient of the binary concrete relaxation.

    Jang et al., 2017, "Categorical reparameterization with Gumbel-softmax"; with two choices the difference of two
    Gumbel draws is a logistic one.

    Args:
        generator: of the draws.
        temperature: of the relaxation; lower is steeper.
    """

    def decide(probabilities: Tensor, observation: Observation) -> Tensor:
        p = probabilities.clamp(1e-6, 1 - 1e-6)
        noise = rand_rows(p.shape, generator, p.device).clamp(1e-6, 1 - 1e-6).logit()
        x = p.logit() + noise
        return straight_through((x.detach() > 0).float(), (x / temperature).sigmoid())

    return decide
