"""What the policy sees before a block, and how the gates' input is put together from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import torch
from torch import Tensor

from lcnet_rl.gates import Probe
from lcnet_rl.policies import LayerPolicy


@dataclass(frozen=True)
class Observation:
    """What the policy sees before block ``block``; nothing in it carries a gradient into the backbone.

    The probe runs when its logits or the confidence are first read: where the gates read no confidence, it runs in
    training only.
    """

    pooled: Tensor
    """(B, C), pooled features of the block's input."""
    spent: Tensor
    """(B,), MACs so far as a share of the dense model's."""
    price: Tensor
    """(B,), the price of compute."""
    block: int
    probe: Probe
    """The block's probe."""
    has_confidence: bool
    """Whether the policy sees the probe's confidence."""
    policy: LayerPolicy | None = None
    """A rival's policy; None for L-Net and C-Net."""
    memory: Tensor | None = None
    """(B, M), what a rival's policy has noted so far."""

    @cached_property
    def probe_logits(self) -> Tensor:
        """(B, classes), with a gradient to the probe only; for training, whether or not the policy sees them."""
        return self.probe(self.pooled)

    @cached_property
    def confidence(self) -> Tensor:
        """(B, 2), the probe's largest probability and normalised entropy; (B, 0) where the policy sees neither."""
        return Probe.confidence(self.probe_logits.detach()) if self.has_confidence else self.pooled[:, :0]

    @cached_property
    def decided(self) -> tuple[Tensor, Tensor]:
        """A rival's keep logits (B, 1) and next memory (B, M), which are computed once an observation."""
        assert self.policy is not None
        assert self.memory is not None
        return self.policy.decide(self.block, self.pooled, self.memory)

    @cached_property
    def gate_input(self) -> Tensor:
        """What L-Net and C-Net read, before standardising: (B, C + 4), or (B, C + 2) without confidence."""
        return gate_input(self.pooled, self.confidence, self.spent, self.price)


Decider: TypeAlias = Callable[[Observation], Tensor]
"""Makes an action (B, action_size), 1 = keep, of what is observed."""


def gate_input(pooled: Tensor, confidence: Tensor, spent: Tensor, price: Tensor) -> Tensor:
    """Concatenate an observation's parts, (B, C), (B, 2 or 0), (B,), (B,), to (B, C + 4 or 2)."""
    return torch.cat((pooled, confidence, spent[:, None], price[:, None]), 1)
