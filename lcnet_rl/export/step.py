"""One step of the decision process as ONNX nodes: observe, decide greedily, advance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from lcnet_rl.backbones import Block, PaddedShortcut
from lcnet_rl.engine.fold import parameters
from lcnet_rl.export import gates
from lcnet_rl.export.builder import BOOL, DOUBLE, FLOAT, Graph, Type
from lcnet_rl.export.filters import Residual, run_filters, split
from lcnet_rl.export.layout import Layout
from lcnet_rl.gates import CNet, LNet
from lcnet_rl.macs import BlockCost
from lcnet_rl.model import LCNet


@dataclass(frozen=True)
class Place:
    """The names of what passes from block to block."""

    x: str
    """Features (1, C, H, W)."""
    pooled: str
    """Their average (1, C)."""
    spent: str
    """MACs so far, float64 (1, 1)."""


@dataclass(frozen=True)
class Step:
    """What it takes to write a block."""

    model: LCNet
    layout: Layout
    block: Block
    """With BatchNorm folded."""
    t: int
    """Its number."""
    place: Place
    """Before the block."""
    price: str
    """(1, 1)."""
    cut: str
    """(1, 1), the logit that a keep logit must exceed."""

    @property
    def cost(self) -> BlockCost:
        """The block's MACs."""
        return self.model.costs.blocks[self.t]

    def write(self, graph: Graph) -> tuple[Place, str]:
        """Add the block to ``graph``: the place after it, and the row of decisions, bool (1, action_size)."""
        gate_input = gates.gate_input(graph, self.model, self.t, self.place.pooled, self.place.spent, self.price)
        beside = shortcut(graph, self.layout, self.block, self.place.x)
        if not self.model.has_l_net:
            *names, row = self._keep(graph, beside, gate_input, None)
            return Place(*names), row
        l_net = cast(LNet, self.model.l_nets[self.t])
        layers = zip(*(gates.folded(self.model, self.t, part) for part in (l_net.keep, l_net.scale)), strict=True)
        logit, scale = split(graph, gates.linear(graph, gate_input, *map(torch.cat, layers)), 2)
        types: list[Type] = [
            (FLOAT, None),
            (FLOAT, [1, self.block.out_channels]),
            (DOUBLE, [1, 1]),
            (BOOL, [1, self.model.action_size]),
        ]
        *names, row = graph.branch(
            graph.op("Greater", logit, self.cut),
            lambda branch: self._keep(branch, beside, gate_input, scale),
            lambda branch: self._skip(branch, beside),
            types,
        )
        return Place(*names), row

    def _skip(self, graph: Graph, beside: str) -> list[str]:
        """Features, their average, MACs and decisions without the block's own work."""
        after = graph.op("Relu", beside)
        unchanged = beside == self.place.x
        pooled = graph.op("Identity", self.place.pooled) if unchanged else self.layout.pool(graph, after)
        spent = graph.op("Add", self.place.spent, macs(graph, self.cost.shortcut + self.cost.l_net))
        nothing = graph.constant(torch.zeros(1, self.model.action_size, dtype=torch.bool))
        return [after, pooled, spent, graph.op("Identity", nothing)]

    def _keep(self, graph: Graph, beside: str, gate_input: str, scale: str | None) -> list[str]:
        """The same with it; ``scale`` is what ReLU-1 makes S_L of."""
        factor = None if scale is None else graph.op("Clip", scale, graph.constant(0.0), graph.constant(1.0))
        residual = Residual(self.layout, self.block, self.place.x, beside, factor)
        always = self.cost.shortcut + self.cost.l_net + self.cost.c_net
        kept = graph.constant(torch.ones(1, int(self.model.has_l_net), dtype=torch.bool))
        if self.model.has_c_net:
            c_net, groups = cast(CNet, self.model.c_nets[self.t]), self.model.group_counts[self.t]
            keep, scales = (gates.folded(self.model, self.t, part) for part in (c_net.keep, c_net.scale))
            logits = gates.linear(graph, gate_input, *keep)
            after = run_filters(graph, residual.scaled(gate_input, scales), logits, groups, self.cut)
            bits = graph.op("Greater", logits, self.cut)
            group_macs = self.cost.filter * self.cost.filters // groups
            each = graph.constant(torch.full((groups, 1), group_macs, dtype=torch.float64))
            filters = graph.op("MatMul", graph.op("Cast", bits, to=DOUBLE), each)
            missing = torch.zeros(1, self.model.action_size - int(self.model.has_l_net) - groups, dtype=torch.bool)
            row = graph.op("Concat", kept, bits, graph.constant(missing), axis=1)
        else:
            after, filters = residual.whole(graph), macs(graph, self.cost.filter * self.cost.filters)
            row = graph.op("Identity", kept)
        spent = graph.op("Add", graph.op("Add", self.place.spent, macs(graph, always)), filters)
        return [after, self.layout.pool(graph, after), spent, row]


def shortcut(graph: Graph, layout: Layout, block: Block, x: str) -> str:
    """A block's shortcut, (1, C, H, W) to (1, C_out, H / stride, W / stride)."""
    module = block.shortcut
    if isinstance(module, PaddedShortcut):
        return layout.shortcut(graph, x, module, block.in_channels)
    if isinstance(module, nn.Conv2d):
        return layout.conv(graph, x, *parameters(module), block.stride, relu=False)
    return x


def macs(graph: Graph, count: int) -> str:
    """A number of MACs, float64 (1, 1)."""
    return graph.constant(torch.full((1, 1), count, dtype=torch.float64))
