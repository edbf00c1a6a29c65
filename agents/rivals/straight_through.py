"""Hard decisions that let the task's gradient through to the policy."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lcnet_rl.distributed import rand_rows
from lcnet_rl.model import Observation


def straight_through(hard: Tensor, soft: Tensor) -> Tensor:
    """``hard`` forwards, the gradient of ``soft`` backwards (Bengio et al., 2013, "Estimating or propagating gradients
    through stochastic neurons for conditional computation"); all of one shape."""
    return hard + (soft - soft.detach())


def rounded(probabilities: Tensor, observation: Observation) -> Tensor:
    """Keep iff the probability exceeds 1/2, with the probability's gradient: (B, A) to (B, A)."""
    return straight_through((probabilities.detach() > 0.5).float(), probabilities)


def gumbel(generator: torch.Generator, temperature: float) -> Callable[[Tensor, Observation], Tensor]:
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
