"""One step of the decision process as ONNX nodes: observe, decide greedily, advance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from lcnet_rl.backbones import Block, PaddedShortcut
from lcnet_rl.engine.fold import parameters
from lcnet_rl.export import gates
from lcnet_rl.export.builder import FLOAT, Graph, Type
from lcnet_rl.export.filters import Residual, run_filters
from lcnet_rl.export.layout import Layout
from lcnet_rl.gates import CNet, LNet
from lcnet_rl.model import LCNet


@dataclass(frozen=True)
class Place:
    """The names of what passes from block to block."""

    x: str
    """Features (1, C, H, W)."""
    pooled: str
    """Their average (1, C)."""
    above: str
    """Share of dense MACs that decisions added so far, (1, 1)."""


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

    def write(self, graph: Graph) -> tuple[Place, str]:
        """Add the block to ``graph``: the place after it, and the row of decisions, float32 (1, action_size)."""
        model, place = self.model, self.place
        gate_input = gates.gate_input(graph, model, self.t, place.pooled, place.above, self.price)
        beside = shortcut(graph, self.layout, self.block, place.x)
        if model.has_l_net:
            keep = gates.linear(graph, gate_input, *gates.folded(model, self.t, cast(LNet, model.l_nets[self.t]).keep))
            types: list[Type] = [
                (FLOAT, None),
                (FLOAT, [1, self.block.out_channels]),
                (FLOAT, [1, model.action_size]),
            ]
            x, pooled, row = graph.branch(
                graph.op("Greater", keep, self.cut),
                lambda branch: self._keep(branch, beside, gate_input),
                lambda branch: self._skip(branch, beside),
                types,
            )
        else:
            x, pooled, row = self._keep(graph, beside, gate_input)
        shares = gates.kept_costs(model, self.t) / model.costs.dense
        above = graph.op("Gemm", row, graph.constant(shares.float()), place.above)
        return Place(x, pooled, above), row

    def _skip(self, graph: Graph, beside: str) -> list[str]:
        """Features, their average, and the row of decisions, without the block's own work."""
        after = graph.op("Relu", beside)
        unchanged = beside == self.place.x
        pooled = graph.op("Identity", self.place.pooled) if unchanged else self.layout.pool(graph, after)
        return [after, pooled, graph.op("Identity", graph.constant(torch.zeros(1, self.model.action_size)))]

    def _keep(self, graph: Graph, beside: str, gate_input: str) -> list[str]:
        """The same with it."""
        model, factor = self.model, None
        if model.has_l_net:
            scale = gates.folded(model, self.t, cast(LNet, model.l_nets[self.t]).scale)
            factor = gates.relu1(graph, gates.linear(graph, gate_input, *scale))
        residual = Residual(self.layout, self.block, self.place.x, beside, factor)
        kept = graph.constant(torch.ones(1, int(model.has_l_net)))
        if not model.has_c_net:
            after = residual.whole(graph)
            return [after, self.layout.pool(graph, after), graph.op("Identity", kept)]
        c_net, groups = cast(CNet, model.c_nets[self.t]), model.group_counts[self.t]
        keep, scales = (gates.folded(model, self.t, part) for part in (c_net.keep, c_net.scale))
        bits = graph.op("Greater", gates.linear(graph, gate_input, *keep), self.cut)
        after = run_filters(graph, residual.scaled(gate_input, scales), bits, groups)
        missing = torch.zeros(1, model.action_size - int(model.has_l_net) - groups)
        row = graph.op("Concat", kept, graph.op("Cast", bits, to=FLOAT), graph.constant(missing), axis=1)
        return [after, self.layout.pool(graph, after), row]


def shortcut(graph: Graph, layout: Layout, block: Block, x: str) -> str:
    """A block's shortcut, (1, C, H, W) to (1, C_out, H / stride, W / stride)."""
    module = block.shortcut
    if isinstance(module, PaddedShortcut):
        return layout.shortcut(graph, x, module, block.in_channels)
    if isinstance(module, nn.Conv2d):
        return layout.conv(graph, x, *parameters(module), block.stride, relu=False)
    return x
