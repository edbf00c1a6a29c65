"""What the bits of an action mean in each block of a network, and what they cost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lcnet_rl.errors import UserError
from lcnet_rl.macs import CostTable


def threshold_logit(threshold: float) -> float:
    """What a keep logit must exceed where the probability has to exceed ``threshold``.

    Near 0 and 1, logits tell probabilities apart that float32 does not.

    Raises:
        UserError: for a threshold outside (0, 1).
    """
    if not 0 < threshold < 1:
        raise UserError(f"a threshold is in (0, 1), got {threshold}")
    return math.log(threshold / (1 - threshold))


def decision_names(depth: int, networks: int) -> list[str]:
    """What ``depth`` decisions of so many networks in a row are about: blocks, by their numbers, then networks."""
    blocks = depth - networks + 1
    return [*map(str, range(blocks)), *(f"network {number}" for number in range(2, networks + 1))]


@dataclass(frozen=True)
class Decisions:
    """What is decided about an image, block by block: L-Net's bit, then C-Net's, one a group, as far as there are any.

    An action is a row of ``action_size`` numbers, 1 = keep, as long as the block with the most bits needs; others
    ignore the rest. Each network behind the first one is one more block.
    """

    costs: CostTable
    """Of all blocks, and what is no block's."""
    group_counts: tuple[int, ...]
    """Filter groups of every block that C-Net decides about; 0 where it decides nothing."""

    @property
    def depth(self) -> int:
        """How many blocks are decided about."""
        return len(self.costs.blocks)

    @property
    def has_l_net(self) -> bool:
        """Whether blocks are decided about, by L-Net or by a rival's policy."""
        return self.costs.skips_blocks

    @property
    def has_c_net(self) -> bool:
        """Whether filters are decided about."""
        return any(self.group_counts)

    @property
    def first_group(self) -> int:
        """Where C-Net's bits begin in an action: behind L-Net's, if there is one."""
        return int(self.has_l_net)

    @cached_property
    def bits(self) -> tuple[int, ...]:
        """How many bits of an action every block has."""
        return tuple(self.first_group + count for count in self.group_counts)

    @cached_property
    def action_size(self) -> int:
        """How many bits the block with the most has."""
        return max(self.bits)

    @property
    def action_mask(self) -> Tensor:
        """Which bits of an action every block has: bool (depth, action_size), on the CPU."""
        return torch.arange(self.action_size) < torch.tensor(self.bits)[:, None]

    def group_bits(self, block: int) -> slice:
        """Which columns of an action (B, action_size) are C-Net's bits for a block; none where it has no C-Net."""
        return slice(self.first_group, self.bits[block])

    def check_action(self, action: Tensor, block: int, count: int) -> None:
        """Refuse what is no action about ``block`` for ``count`` images.

        Raises:
            UserError: for another shape than (count, action_size), and where all blocks are done.
        """
        if block >= self.depth:
            raise UserError(f"all {self.depth} blocks are done: classify the state, or begin with other images")
        if action.shape != (count, self.action_size):
            wanted, got = (count, self.action_size), tuple(action.shape)
            raise UserError(f"an action about {count} images is {wanted}, one row an image, got {got}")

    def split(self, action: Tensor, block: int) -> tuple[Tensor, Tensor]:
        """An action's parts, with ones where there is no gate.

        Args:
            action: (B, action_size), in {0, 1}, or [0, 1] for a mean-field pass.
            block: which block.

        Returns:
            L-Net's bit (B,) and the filters' bits (B, filters).
        """
        filters = self.costs.blocks[block].filters
        keep = action[:, 0] if self.has_l_net else action.new_ones(action.shape[0])
        if not self.decides_filters(block):
            return keep, action.new_ones(action.shape[0], filters)
        bits = action[:, self.group_bits(block)]
        return keep, bits.repeat_interleave(filters // self.group_counts[block], 1)

    def decides_filters(self, block: int) -> bool:
        """Whether there is a C-Net for the block."""
        return self.group_counts[block] > 0

    def bill(self, action: Tensor, block: int) -> Tensor:
        """MACs that ``action`` costs in ``block``: (B, action_size) to (B,), float64.

        Linear in every bit, so with keep probabilities in place of bits it is the exact expected bill of independent
        decisions.
        """
        action, cost = action.double(), self.costs.blocks[block]
        keep = action[:, 0] if self.has_l_net else action.new_ones(len(action))
        filters: Tensor | int = cost.filters
        if self.decides_filters(block):
            groups = action[:, self.group_bits(block)]
            filters = groups.sum(1) * (cost.filters // self.group_counts[block])
        return cost.shortcut + cost.always + keep * (cost.if_kept + cost.filter * filters)

    def path_bill(self, actions: Tensor) -> Tensor:
        """MACs of whole images, stem and head included: ``actions`` (depth, B, action_size) to (B,), float64."""
        return self.costs.fixed + torch.stack([self.bill(action, t) for t, action in enumerate(actions)]).sum(0)

    def consulted(self, action: Tensor, block: int | Tensor) -> Tensor:
        """Which bits of an action (B, action_size) about ``block``, one for all rows or (B,), were decisions: 1 or 0.

        Those are the block's own bits, and of them C-Net's only where L-Net kept the block. Any device will do.
        """
        bits = torch.tensor(self.bits, device=action.device)[block].reshape(-1, 1)
        asked = (torch.arange(self.action_size, device=action.device) < bits).float().expand_as(action)
        if self.has_l_net and self.has_c_net:
            asked = torch.cat((asked[:, :1], asked[:, 1:] * action[:, :1]), 1)
        return asked

    def executed(self, actions: Tensor) -> Tensor:
        """``actions`` (depth, B, action_size) without the bits that changed nothing, so a path has one spelling."""
        return torch.stack([action * self.consulted(action, t) for t, action in enumerate(actions)])

    def kept(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """What ran under ``actions`` (depth, B, action_size).

        Returns:
            Whether each block ran, (depth, B), and the share of its filters that ran (0 where it did not), (depth, B).
        """
        ran, shares = [], []
        for t, action in enumerate(actions):
            keep, filters = self.split(action, t)
            share = keep * filters.mean(1)
            ran.append((share > 0).float())
            shares.append(share)
        return torch.stack(ran), torch.stack(shares)
