"""What every part of a dynamic network costs, in MACs: multiply-adds of convolutions and linear layers.

A bill of one image covers stem, shortcuts, gates that ran, kept filters in both convolutions of a kept block, and head.
Additions, BatchNorm (folded at inference), ReLU, pooling, normalisation and the scalings by S_L and S_C (under
1 % of a block of the ResNet-20 together) are not MACs, here as in the papers.
FLOPs, where anyone wants them, are 2 x MACs.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from lcnet_rl.backbones import IMAGE_SIZE, Backbone, Block, ConvPool


@dataclass(frozen=True)
class BlockCost:
    """MACs of one block's parts."""

    shortcut: int
    """Always runs: a projection, and the convolution that leads to the next stage, where there are such."""
    filter: int
    """One filter kept: its share of the first convolution and of the second one's input."""
    filters: int
    """How many filters the first convolution has; 1 for a network behind, which runs whole or not at all."""
    always: int
    """Gates that run for every image: L-Net and the probe whose confidence the gates read, or a rival's policy."""
    if_kept: int
    """Gates that run only for images that keep the block: C-Net."""

    @property
    def dense(self) -> int:
        """The plain block: shortcut and all filters, no gates."""
        return self.shortcut + self.filter * self.filters


@dataclass(frozen=True)
class CostTable:
    """MACs of a dynamic network, per image."""

    stem: int
    blocks: tuple[BlockCost, ...]
    head: int
    start: int = 0
    """What decides before the first block, for all of them, where there is such a network (BlockDrop's)."""

    skips_blocks: bool = True
    """Whether there is an L-Net; without one every block is kept, and its C-Net asked."""

    @property
    def dense(self) -> int:
        """The plain backbone, without any gate: what shares of compute are shares of."""
        return self.stem + sum(block.dense for block in self.blocks) + self.head

    @property
    def fixed(self) -> int:
        """What is no block's: stem, start and head."""
        return self.stem + self.start + self.head

    def floor_before(self, block: int) -> int:
        """The least that can be spent before a block: nothing kept so far, and the gates that always run."""
        costs = self.blocks[:block]
        blocks = sum(cost.shortcut + cost.always + cost.if_kept * (not self.skips_blocks) for cost in costs)
        return self.stem + self.start + blocks

    @property
    def floor(self) -> int:
        """The smallest possible bill: nothing kept, and the gates that always run."""
        return self.floor_before(len(self.blocks)) + self.head

    @property
    def gates(self) -> int:
        """All gates, if every block is kept."""
        return self.start + sum(block.always + block.if_kept for block in self.blocks)

    @property
    def ceiling(self) -> int:
        """The largest possible bill: everything kept, all gates."""
        return self.dense + self.gates


def convolution_macs(conv: nn.Conv2d, size: int) -> int:
    """MACs of a convolution whose output is (C_out, size, size): C_out * C_in / groups * k * k * size * size."""
    kernel = conv.kernel_size[0] * conv.kernel_size[1]
    return conv.out_channels * conv.in_channels // conv.groups * kernel * size * size


def linear_macs(module: nn.Module) -> int:
    """MACs of all linear layers in ``module``, each run once: in * out."""
    return sum(m.in_features * m.out_features for m in module.modules() if isinstance(m, nn.Linear))


def exit_macs(module: nn.Module, size: int) -> int:
    """MACs of what leads from features of ``size`` by ``size`` to the next stage."""
    return convolution_macs(module.conv, size) if isinstance(module, ConvPool) else 0


def block_cost(block: Block, size: int, always: int, if_kept: int) -> BlockCost:
    """The costs of ``block`` when its output, before its exit, is (C_out, size, size).

    Args:
        block: the residual block.
        size: height and width of its output, in pixels.
        always: MACs of all gates that run for every image.
        if_kept: MACs of all gates that run only for images that keep the block.
    """
    both = convolution_macs(block.conv1, size) + convolution_macs(block.conv2, size)
    projections = [m for m in block.shortcut.modules() if isinstance(m, nn.Conv2d)]
    return BlockCost(
        shortcut=sum(convolution_macs(conv, size) for conv in projections) + exit_macs(block.exit, size),
        filter=both // block.filters,
        filters=block.filters,
        always=always,
        if_kept=if_kept,
    )


def cost_table(backbone: Backbone, always: list[int], if_kept: list[int], start: int = 0) -> CostTable:
    """The cost table of a backbone with gates.

    Args:
        backbone: the network.
        always: per block, and then per network behind this one, MACs of the gates that always run.
        if_kept: the same of the gates that run where the block is kept.
        start: MACs of what decides before the first block.
    """
    gates, sizes = list(zip(always, if_kept, strict=True)), backbone.sizes()[:-1]
    blocks = []
    for block, size, costs in zip(backbone.own_blocks, sizes, gates[: len(sizes)], strict=True):
        blocks.append(block_cost(block, size // block.stride, *costs))
    for network, costs in zip(backbone.networks[1:], gates[len(sizes) :], strict=True):
        blocks.append(BlockCost(0, features_macs(network), 1, *costs))
    return CostTable(stem_macs(backbone), tuple(blocks), linear_macs(backbone.head), start)


def stem_macs(network: Backbone) -> int:
    """A stem, with the convolution that leads to the first stage where there is one."""
    exit_size = IMAGE_SIZE // network.stem.stride
    return convolution_macs(network.stem.conv, IMAGE_SIZE) + exit_macs(network.stem.exit, exit_size)


def features_macs(network: Backbone) -> int:
    """What ``network.features`` computes for an image: no head, and not the networks behind it."""
    parts = zip(network.own_blocks, network.sizes()[:-1], strict=True)
    costs = (block_cost(block, size // block.stride, 0, 0) for block, size in parts)
    own = stem_macs(network) + sum(cost.dense for cost in costs)
    return own * (2 if network.spec.mirrored else 1)


def dense_macs(backbone: Backbone) -> int:
    """The plain backbone, all of it."""
    return sum(features_macs(network) for network in backbone.networks) + linear_macs(backbone.head)
