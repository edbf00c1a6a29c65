"""A block's two convolutions with just the filters that C-Net keeps, as ONNX nodes; in one of three ways.

- ``sets``: the weights once for every set of filter groups, and a tree of ``If`` nodes that leads to the right copy.
  The fastest, for blocks whose weights are few.
- ``groups``: the weights once for all filters together, and once more as an ``If`` a group, which adds its part to what
  the groups before it gave.
- ``mask``, where every filter is a group: all filters, and the dropped ones times 0, so only whole blocks are saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from lcnet_rl.backbones import Block
from lcnet_rl.engine.fold import parameters
from lcnet_rl.export.builder import BOOL, FLOAT, Graph, Type
from lcnet_rl.export.gates import linear, relu1
from lcnet_rl.export.layout import Layout

FEATURES: Type = (FLOAT, None)
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
    factor: str | None = None
    """S_L, (1, 1), or None without L-Net."""
    gate_input: str = ""
    """What C-Net reads, (1, C + 4)."""
    scales: tuple[Tensor, Tensor] | None = None
    """C-Net's layer for S_C, weight and bias, or None without C-Net."""

    def scaled(self, gate_input: str, scales: tuple[Tensor, Tensor]) -> Residual:
        """The same, with C-Net."""
        return replace(self, gate_input=gate_input, scales=scales)

    def whole(self, graph: Graph, mask: str | None = None) -> str:
        """All filters, times ``mask`` (1, filters) if given."""
        return self.kept(graph, torch.arange(self.block.filters), mask)

    def kept(self, graph: Graph, filters: Tensor, mask: str | None = None) -> str:
        """Some filters, by their numbers."""
        hidden, scales = self._first(graph, filters), self._scales(graph, filters)
        if mask is not None:
            scales = mask if scales is None else graph.op("Mul", scales, mask)
        weight, bias = parameters(self.block.conv2)
        return self.layout.finish(graph, self.shortcut, hidden, weight[:, filters], bias, scales, self.factor)

    def by_sets(self, graph: Graph, bits: Sequence[str]) -> str:
        """A tree of ``If`` nodes over the groups' bits, each bool (1, 1)."""
        groups = torch.arange(self.block.filters).view(len(bits), -1)

        def choose(branch: Graph, group: int, kept: list[int]) -> str:
            if group == len(bits):
                return self.kept(branch, groups[kept].flatten()) if kept else branch.op("Relu", self.shortcut)
            return branch.branch(
                bits[group],
                lambda inner: [choose(inner, group + 1, [*kept, group])],
                lambda inner: [choose(inner, group + 1, kept)],
                [FEATURES],
            )[0]

        return choose(graph, 0, [])

    def by_groups(self, graph: Graph, bits: Sequence[str]) -> str:
        """An ``If`` a group; to be run only if there is one to keep."""
        total = self.layout.shift(graph, self.shortcut, parameters(self.block.conv2)[1], self.factor)
        for filters, bit in zip(torch.arange(self.block.filters).view(len(bits), -1), bits, strict=True):

            def add(branch: Graph, filters: Tensor = filters, before: str = total) -> list[str]:
                hidden, scales = self._first(branch, filters), self._scales(branch, filters)
                assert scales is not None
                scales = scales if self.factor is None else branch.op("Mul", scales, self.factor)
                hidden = self.layout.scale(branch, hidden, scales, self.layout.padded(len(filters)))
                return [self.layout.add_conv(branch, before, hidden, self.block.conv2.weight[:, filters])]

            def drop(branch: Graph, before: str = total) -> list[str]:
                return [branch.op("Identity", before)]

            total = graph.branch(bit, add, drop, [FEATURES])[0]
        return graph.op("Relu", total)

    def _first(self, graph: Graph, filters: Tensor) -> str:
        weight, bias = (part[filters] for part in parameters(self.block.conv1))
        return self.layout.conv(graph, self.x, weight, bias, self.block.stride, relu=True)

    def _scales(self, graph: Graph, filters: Tensor) -> str | None:
        if self.scales is None:
            return None
        missing = self.layout.padded(len(filters)) - len(filters)
        weight, bias = (part[filters] for part in self.scales)
        raw = linear(graph, self.gate_input, F.pad(weight, (0, 0, 0, missing)), F.pad(bias, (0, missing)))
        return relu1(graph, raw)


def run_filters(graph: Graph, residual: Residual, bits: str, groups: int) -> str:
    """A kept block's output for C-Net's decisions.

    Args:
        graph: gets the nodes.
        residual: what to compute.
        bits: bool (1, groups), true = kept.
        groups: how many there are.
    """
    weights = residual.block.conv1.weight.nbytes + residual.block.conv2.weight.nbytes
    if groups <= SETS_GROUPS and weights <= SETS_BYTES:
        return residual.by_sets(graph, split(graph, bits, groups))
    mask, axes = graph.op("Cast", bits, to=FLOAT), graph.constant([1])

    def run_some(branch: Graph) -> list[str]:
        if groups < residual.block.filters:
            return [residual.by_groups(branch, split(branch, bits, groups))]
        return [residual.whole(branch, mask)]

    def run_fewer(branch: Graph) -> list[str]:
        some_kept = branch.op("Cast", branch.op("ReduceMax", mask, axes), to=BOOL)
        return branch.branch(some_kept, run_some, lambda inner: [inner.op("Relu", residual.shortcut)], [FEATURES])

    all_kept = graph.op("Cast", graph.op("ReduceMin", mask, axes), to=BOOL)
    return graph.branch(all_kept, lambda branch: [residual.whole(branch)], run_fewer, [FEATURES])[0]


def split(graph: Graph, bits: str, groups: int) -> list[str]:
    """(1, groups) to as many (1, 1)."""
    return graph.ops("Split", bits, outputs=groups, axis=1, num_outputs=groups) if groups > 1 else [bits]
