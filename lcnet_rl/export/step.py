"""One step of the decision process as ONNX nodes: observe, decide greedily, advance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from lcnet_rl.backbones import Block, ConvPool, PaddedShortcut
from lcnet_rl.engine.fold import parameters
from lcnet_rl.export import gates
from lcnet_rl.export.builder import FLOAT, Graph, Type
from lcnet_rl.export.filters import Layer, Residual, run_filters
from lcnet_rl.export.layout import Layout
from lcnet_rl.gates import Gate
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
        if l_net := self._folded(model.l_net(self.t), "keep"):
            keep = gates.linear(graph, gate_input, *l_net)
            pooled_types: list[Type] = [] if self.leads_on else [(FLOAT, [1, self.block.out_channels])]
            types: list[Type] = [(FLOAT, None), *pooled_types, (FLOAT, [1, model.action_size])]
            x, *pooled, row = graph.branch(
                graph.op("Greater", keep, self.cut),
                lambda branch: self._keep(branch, beside, gate_input),
                lambda branch: self._skip(branch, beside),
                types,
            )
        else:
            x, *pooled, row = self._keep(graph, beside, gate_input)
        if self.leads_on:
            x = write_exit(graph, self.layout, self.block.exit, x)
            pooled = [self.layout.pool(graph, x)]
        return Place(x, pooled[0], gates.spent_above(graph, model.decisions, self.t, row, place.above)), row

    @property
    def leads_on(self) -> bool:
        """Whether a convolution to the next stage follows, whose output is averaged instead of the block's."""
        return isinstance(self.block.exit, ConvPool)

    def _skip(self, graph: Graph, beside: str) -> list[str]:
        """Features, their average unless the block leads on, and the row of decisions, when the block is skipped."""
        none = graph.constant(torch.zeros(1, self.model.action_size))
        if beside == self.place.x:  # a ReLU's output
            after = graph.op("Identity", beside)
            return [after, none] if self.leads_on else [after, graph.op("Identity", self.place.pooled), none]
        return self._averaged(graph, graph.op("Relu", beside), none)

    def _averaged(self, graph: Graph, after: str, row: str) -> list[str]:
        return [after, row] if self.leads_on else [after, self.layout.pool(graph, after), row]

    def _keep(self, graph: Graph, beside: str, gate_input: str) -> list[str]:
        """Features, their average unless the block leads on, and the row of decisions, when the block runs."""
        model, t = self.model, self.t
        scales = [self._folded(gate, "scale") for gate in (model.l_net(t), model.c_net(t))]
        residual = Residual(self.layout, self.block, self.place.x, beside, gate_input, *scales)
        everything = self.model.decisions.action_mask[t : t + 1].float()

        def run_all(branch: Graph) -> list[str]:
            return [residual.whole(branch), branch.constant(everything)]

        keep = self._folded(model.c_net(t), "keep")
        if keep is None:
            return self._averaged(graph, *run_all(graph))
        logits = gates.linear(graph, gate_input, *keep)

        def run_some(branch: Graph) -> list[str]:
            bits, groups = branch.op("Greater", logits, self.cut), model.decisions.group_counts[t]
            kept = torch.ones(1, model.decisions.first_group)
            missing = torch.zeros(1, model.action_size - model.decisions.first_group - groups)
            row = branch.op(
                "Concat", branch.constant(kept), branch.op("Cast", bits, to=FLOAT), branch.constant(missing), axis=1
            )
            return [run_filters(branch, residual, bits, groups), row]

        least = graph.op("ReduceMin", logits, graph.constant([1]))
        types: list[Type] = [(FLOAT, None), (FLOAT, [1, model.action_size])]
        return self._averaged(graph, *graph.branch(graph.op("Greater", least, self.cut), run_all, run_some, types))

    def _folded(self, gate: Gate | None, layer: Literal["keep", "scale"]) -> Layer | None:
        """A layer of one of the block's gates, if there is that gate."""
        return gates.for_gate_input(self.model, self.t, getattr(gate, layer)) if gate else None


def shortcut(graph: Graph, layout: Layout, block: Block, x: str) -> str:
    """A block's shortcut, (1, C, H, W) to (1, C_out, H / stride, W / stride)."""
    module = block.shortcut
    if isinstance(module, PaddedShortcut):
        return layout.shortcut(graph, x, module, block.in_channels)
    if isinstance(module, nn.Conv2d):
        return layout.conv(graph, x, *parameters(module), block.stride, relu=False)
    return x


def write_exit(graph: Graph, layout: Layout, module: nn.Module, x: str) -> str:
    """What leads to the next stage: a convolution and max-pooling, or nothing."""
    if not isinstance(module, ConvPool):
        return x
    y = layout.conv(graph, x, *parameters(module.conv), 1, relu=True)
    return layout.max_pool(graph, y, 2)
