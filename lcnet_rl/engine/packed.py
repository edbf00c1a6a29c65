"""A block's two convolutions without the filters that were dropped: fewer outputs of the first, fewer inputs of the
second, with the weights of every set of filter groups copied together once and kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lcnet_rl.backbones import Block
from lcnet_rl.engine.convolution import Convolution
from lcnet_rl.engine.fold import parameters

CACHED = 2**23
"""Bytes that the features between a block's convolutions may have: so few that they stay in the cache. More images than
that go through the block in chunks."""


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

    first: Convolution
    second: Convolution
    """Without bias."""
    filters: Tensor
    """(filters,), which of the block's they are."""

    @property
    def nbytes(self) -> int:
        """Bytes."""
        return sum(part.weight.nbytes + part.copied for part in (self.first, self.second))


class PackedBlock:
    """One block for images that keep it, with any set of its filter groups."""

    def __init__(self, block: Block, groups: int, size: int) -> None:
        """Pack a block whose BatchNorms are folded.

        Args:
            block: its weights are used as they are now.
            groups: filter groups, which divide the filters.
            size: height and width of the block's input.
        """
        self.block, self.groups = block, groups
        pixels = (size // block.stride) ** 2
        self.most = max(1, CACHED // (block.filters * pixels * block.conv1.weight.element_size()))
        """Images of a chunk."""
        self.all = (1 << groups) - 1
        self._weights: dict[int, Weights] = {}

    def __getstate__(self) -> dict[str, object]:
        """For pickles and copies, which copy weights together themselves."""
        return {**vars(self), "_weights": {}}

    @property
    def nbytes(self) -> int:
        """Bytes of the weights copied together so far."""
        return sum(weights.nbytes for weights in self._weights.values())

    def run(
        self,
        x: Tensor,
        beside: Tensor,
        kept: int,
        filter_scale: Tensor | None,
        scale: Tensor,
        out: Tensor | None = None,
    ) -> Tensor:
        """``ReLU(beside + S_L * F(x; S_C))`` with the kept groups only.

        Args:
            x: the block's input (B, C_in, H, W), channels last.
            beside: the shortcut's output (B, C_out, H / stride, W / stride).
            kept: the set of groups, as the bits of a number; not 0.
            filter_scale: S_C (B, filters), or None for ones; those of dropped filters are not read.
            scale: S_L (B,).
            out: where to write, or None for a new tensor.

        Returns:
            (B, C_out, H / stride, W / stride).
        """
        weights, scale = self._of(kept), scale[:, None]
        hidden = weights.first.relu(x)
        # S_L goes into the second convolution's inputs and bias, which saves a pass over its outputs.
        factor = scale if filter_scale is None else scale * self._chosen(filter_scale, weights, kept)
        hidden.mul_(factor.to(hidden.dtype)[:, :, None, None])
        bias = (scale * parameters(self.block.conv2)[1]).to(hidden.dtype)[:, :, None, None]
        return weights.second.add_relu_(torch.add(beside, bias, out=out), hidden)

    def filters(self, kept: int) -> int:
        """How many filters the set ``kept`` of groups has."""
        return kept.bit_count() * self.block.filters // self.groups

    def _of(self, kept: int) -> Weights:
        if kept not in self._weights:
            self._weights[kept] = self._pack(kept)
        return self._weights[kept]

    def _pack(self, kept: int) -> Weights:
        first, second = self.block.conv1, self.block.conv2
        bits = torch.tensor([kept >> group & 1 for group in range(self.groups)], dtype=torch.bool)
        filters = bits.repeat_interleave(self.block.filters // self.groups).nonzero()[:, 0].to(first.weight.device)
        weight, bias = parameters(first)
        return Weights(
            Convolution(weight[filters], bias[filters], self.block.stride),
            Convolution(second.weight[:, filters], None, 1),
            filters,
        )

    def _chosen(self, filter_scale: Tensor, weights: Weights, kept: int) -> Tensor:
        return filter_scale if kept == self.all else filter_scale[:, weights.filters]


def as_rows(features: Tensor) -> Tensor:
    """Channels-last features (B, C, H, W) as a view (B, H * W * C), whose rows are moved in one piece."""
    return features.permute(0, 2, 3, 1).flatten(1)


def take(features: Tensor, rows: Tensor | slice) -> Tensor:
    """``features[rows]``, (B, C, H, W) to (K, C, H, W), channels last; a slice is not copied."""
    if isinstance(rows, slice):
        return features[rows]
    _, channels, height, width = features.shape
    return as_rows(features)[rows].view(-1, height, width, channels).permute(0, 3, 1, 2)
