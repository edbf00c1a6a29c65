"""A block's two convolutions with just the filters that C-Net keeps, as ONNX nodes. Where these are not all, in one of
three ways.

- ``sets``: the weights once for every set of filter groups, and a tree of ``If`` nodes that leads to the right copy.
  The fastest, for blocks whose weights are few.
- ``groups``: the weights once for all filters together, and once more as an ``If`` a group, which adds its part to what
  the groups before it gave.
- ``mask``, where every filter is a group: all filters, and the dropped ones times 0, so only whole blocks are saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lcnet_rl.backbones import Block
from lcnet_rl.engine.fold import parameters
from lcnet_rl.export.builder import BOOL, FLOAT, Graph, Type
from lcnet_rl.export.gates import linear, relu1
from lcnet_rl.export.layout import Layout

FEATURES: Type = (FLOAT, None)
Layer = tuple[Tensor, Tensor]
"""A linear layer's weight (O, I) and bias (O,)."""
SETS_GROUPS = 4
"""With more groups there are too many sets."""
SETS_BYTES = 2**21
"""A block with more weights than these is not written for every set; all sets of 4 groups are 8 times a block."""


@dataclass(frozen=True)
class Residual:
    """What a kept block computes, ``ReLU(shortcut + S_L * F(x; S_C))``."""

    layout: Layout
    block: Block
    """With BatchNorm folded."""
    x: str
    """The block's input."""
    shortcut: str
    """The shortcut's output."""
    gate_input: str
    """What the gates read, (1, C + 4), or (1, C + 2) without confidence."""
    l_net: Layer | None
    """L-Net's layer for S_L, if there is an L-Net."""
    c_net: Layer | None
    """C-Net's layer for S_C, if there is a C-Net."""

    def whole(self, graph: Graph, mask: str | None = None) -> str:
        """All filters, times ``mask`` (1, filters) if given."""
        return self.kept(graph, torch.arange(self.block.filters), mask)

    def kept(self, graph: Graph, filters: Tensor, mask: str | None = None) -> str:
        """Some filters, by their numbers."""
        scales, factor = self._scales(graph, filters)
        if mask is not None:
            assert scales is not None
            channels = self.layout.padded(len(filters))
            mask = graph.op("Pad", mask, graph.constant([0, 0, 0, channels - len(filters)]), graph.constant(0.0))
            scales = graph.op("Mul", scales, self.layout.per_channel(graph, mask, channels))
        hidden = self._first(graph, filters)
        weight, bias = parameters(self.block.conv2)
        return self.layout.finish(graph, self.shortcut, hidden, weight[:, filters], bias, scales, factor)

    def by_sets(self, graph: Graph, bits: Sequence[str]) -> str:
        """A tree of ``If`` nodes over the groups' bits, each bool (1, 1), of which one at least is false."""
        groups = torch.arange(self.block.filters).view(len(bits), -1)

        def choose(branch: Graph, group: int, kept: list[int]) -> str:
            if group == len(bits):
                return self.kept(branch, groups[kept].flatten()) if kept else branch.op("Relu", self.shortcut)
            if len(kept) == len(bits) - 1:
                return choose(branch, group + 1, kept)
            return branch.branch(
                bits[group],
                lambda inner: [choose(inner, group + 1, [*kept, group])],
                lambda inner: [choose(inner, group + 1, kept)],
                [FEATURES],
            )[0]

        return choose(graph, 0, [])

    def by_groups(self, graph: Graph, bits: Sequence[str]) -> str:
        """An ``If`` a group; to be run only if there is one to keep."""
        groups = torch.arange(self.block.filters).view(len(bits), -1)
        scales, factor = self._scales(graph, groups)
        assert scales is not None
        if factor is not None:
            scales = graph.op("Mul", scales, factor)
        sizes = [self.layout.padded(groups.shape[1])] * len(groups)
        parts = graph.split(scales, sizes, self.layout.channel_axis)
        total = self.layout.shift(graph, self.shortcut, parameters(self.block.conv2)[1], factor)
        for filters, bit, part in zip(groups, bits, parts, strict=True):

            def add(branch: Graph, filters: Tensor = filters, part: str = part, before: str = total) -> list[str]:
                hidden = self.layout.scale(branch, self._first(branch, filters), part, sizes[0])
                return [self.layout.add_conv(branch, before, hidden, self.block.conv2.weight[:, filters])]

            def drop(branch: Graph, before: str = total) -> list[str]:
                return [branch.op("Identity", before)]

            total = graph.branch(bit, add, drop, [FEATURES])[0]
        return graph.op("Relu", total)

    def _first(self, graph: Graph, filters: Tensor) -> str:
        weight, bias = (part[filters] for part in parameters(self.block.conv1))
        return self.layout.conv(graph, self.x, weight, bias, self.block.stride, relu=True)

    def _scales(self, graph: Graph, filters: Tensor) -> tuple[str | None, str | None]:
        """S_C of some filters, a factor a channel, and S_L, a number: one layer gives both.

        Args:
            graph: gets the nodes.
            filters: their numbers; or rows of numbers, each of which the layout fills up by itself.
        """
        layers, sizes = [], []
        if self.c_net is not None:
            missing = self.layout.padded(filters.shape[-1]) - filters.shape[-1]
            weight, bias = (part[filters] for part in self.c_net)
            layers.append((F.pad(weight, (0, 0, 0, missing)).flatten(0, -2), F.pad(bias, (0, missing)).flatten()))
            sizes.append(len(layers[0][0]))
        if self.l_net is not None:
            layers.append(self.l_net)
            sizes.append(1)
        weight, bias = (torch.cat(parts) for parts in zip(*layers, strict=True))
        row = relu1(graph, linear(graph, self.gate_input, weight, bias))
        if self.c_net is None:
            return None, row
        scales = self.layout.per_channel(graph, row, sum(sizes))
        if self.l_net is None:
            return scales, None
        first, last = graph.split(scales, sizes, self.layout.channel_axis)
        return first, last


def run_filters(graph: Graph, residual: Residual, bits: str, groups: int) -> str:
    """A kept block's output for C-Net's decisions, where not all filters are kept.

    Args:
        graph: gets the nodes.
        residual: what to compute.
        bits: bool (1, groups), true = kept.
        groups: how many there are.
    """
    weights = residual.block.conv1.weight.nbytes + residual.block.conv2.weight.nbytes
    if groups <= SETS_GROUPS and weights <= SETS_BYTES:
        return residual.by_sets(graph, graph.split(bits, [1] * groups, axis=1))
    mask, axes = graph.op("Cast", bits, to=FLOAT), graph.constant([1])

    def run_some(branch: Graph) -> list[str]:
        if groups < residual.block.filters:
            return [residual.by_groups(branch, branch.split(bits, [1] * groups, axis=1))]
        return [residual.whole(branch, mask)]

    some_kept = graph.op("Cast", graph.op("ReduceMax", mask, axes), to=BOOL)
    return graph.branch(some_kept, run_some, lambda branch: [branch.op("Relu", residual.shortcut)], [FEATURES])[0]
