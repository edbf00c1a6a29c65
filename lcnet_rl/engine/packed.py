"""A block's two convolutions without the filters that were dropped: fewer outputs of the first, fewer inputs of the
second, with the weights of every set of filter groups copied together once and kept."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lcnet_rl.backbones import Block

SETS_KEPT = 64
"""Sets of groups whose weights a block keeps; four groups have 15. The least recently used goes first."""


@dataclass(frozen=True)
class Chunk:
    """Images that go through a block together."""

    groups: int
    """The set of filter groups that runs for them, as the bits of a number."""
    images: int

    def split(self, most: int) -> list[Chunk]:
        """The same images in chunks of at most ``most``."""
        return [Chunk(self.groups, min(most, self.images - start)) for start in range(0, self.images, most)]


def count(chunks: Sequence[Chunk]) -> int:
    """How many images they have together."""
    return sum(chunk.images for chunk in chunks)


@dataclass(frozen=True)
class Weights:
    """Both convolutions of a block, restricted to some filters."""

    first: Tensor
    """(filters, C_in, 3, 3), channels last."""
    first_bias: Tensor
    """(filters,)."""
    second: Tensor
    """(C_out, filters, 3, 3), channels last."""
    filters: Tensor
    """(filters,), which of the block's they are."""


class PackedBlock:
    """The residual of one block, for any set of its filter groups."""

    def __init__(self, block: Block, groups: int) -> None:
        """Pack a block whose BatchNorms are folded.

        Args:
            block: its weights are used as they are now.
            groups: filter groups, which divide the filters.
        """
        self.block, self.groups = block, groups
        self.all = (1 << groups) - 1
        self._weights = functools.lru_cache(SETS_KEPT)(self._pack)

    def residual(self, x: Tensor, kept: int, scale: Tensor | None) -> Tensor:
        """``F(x; g)`` of ``Block.residual``, computed with the kept groups only.

        Args:
            x: (B, C_in, H, W).
            kept: the set of groups, as the bits of a number; not 0.
            scale: (B, filters), or None for ones; those of dropped filters are not read.

        Returns:
            (B, C_out, H / stride, W / stride).
        """
        weights = self._weights(kept)
        hidden = F.conv2d(x, weights.first, weights.first_bias, self.block.stride, padding=1).relu_()
        if scale is not None:
            chosen = scale if kept == self.all else scale[:, weights.filters]
            hidden = hidden.mul_(chosen.to(hidden.dtype)[:, :, None, None])
        return F.conv2d(hidden, weights.second, self.block.conv2.bias, padding=1)

    def filters(self, kept: int) -> int:
        """How many filters the set ``kept`` of groups has."""
        return kept.bit_count() * self.block.filters // self.groups

    def _pack(self, kept: int) -> Weights:
        first, second = self.block.conv1, self.block.conv2
        bits = torch.tensor([kept >> group & 1 for group in range(self.groups)], dtype=torch.bool)
        filters = bits.repeat_interleave(self.block.filters // self.groups).nonzero()[:, 0].to(first.weight.device)
        assert first.bias is not None
        return Weights(
            first.weight[filters].contiguous(memory_format=torch.channels_last),
            first.bias[filters],
            second.weight[:, filters].contiguous(memory_format=torch.channels_last),
            filters,
        )


def as_rows(features: Tensor) -> Tensor:
    """Channels-last features (B, C, H, W) as a view (B, H * W * C), whose rows are moved in one piece."""
    return features.permute(0, 2, 3, 1).flatten(1)


def take(features: Tensor, rows: Tensor | slice) -> Tensor:
    """``features[rows]``, (B, C, H, W) to (K, C, H, W), channels last."""
    _, channels, height, width = features.shape
    return as_rows(features)[rows].view(-1, height, width, channels).permute(0, 3, 1, 2)
