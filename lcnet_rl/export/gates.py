"""Probe, L-Net and C-Net as ONNX nodes, with the standardising of their inputs folded into their weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lcnet_rl.decisions import Decisions
from lcnet_rl.export.builder import Graph
from lcnet_rl.gates import PRICE_REACH
from lcnet_rl.model import LCNet


def linear(graph: Graph, x: str, weight: Tensor, bias: Tensor, name: str | None = None) -> str:
    """``x @ weight.T + bias``, (1, I) to (1, O)."""
    return graph.op("Gemm", x, graph.constant(weight), graph.constant(bias), transB=1, name=name)


def relu1(graph: Graph, x: str) -> str:
    """ReLU-1, ``clamp(x, 0, 1)``; ONNX Runtime makes one operator of a ``HardSigmoid`` and the layer before it."""
    return graph.op("HardSigmoid", x, alpha=1.0, beta=0.0)


def gate_input(graph: Graph, model: LCNet, block: int, pooled: str, above: str, price: str) -> str:
    """An observation's ``gate_input``, (1, I), but for what ``for_gate_input`` puts right.

    That is standardising, the entropy's sign and normalisation, and the MACs that every image has spent before the
    block: ``above`` (1, 1) is the share of dense MACs beyond these.
    """
    if not model.has_confidence:
        return graph.op("Concat", pooled, above, price, axis=1)
    probe = model.probe(block).classifier
    log_p = graph.op("LogSoftmax", linear(graph, pooled, probe.weight, probe.bias), axis=1)
    p, axes = graph.op("Exp", log_p), graph.constant([1])
    entropy = graph.op("Gemm", p, log_p, transB=1)
    return graph.op("Concat", pooled, graph.op("ReduceMax", p, axes), entropy, above, price, axis=1)


def spent_above(graph: Graph, decisions: Decisions, block: int, row: str, before: str) -> str:
    """The share of dense MACs that decisions added, (1, 1), after a block's ``row`` (1, action_size) of them."""
    shares = kept_costs(decisions, block) / decisions.costs.dense
    return graph.op("Gemm", row, graph.constant(shares.float()), before)


def price_input(graph: Graph, model: LCNet, price: str) -> str:
    """The price (1, 1) as the gates read it."""
    prices = model.spec.prices
    if prices is None:
        return price
    relative = graph.op("Log", graph.op("Mul", price, graph.constant(1 / prices.middle)))
    steepness = 2 * PRICE_REACH / math.log(prices.high / prices.low)
    reach = graph.constant(-PRICE_REACH), graph.constant(PRICE_REACH)
    return graph.op("Clip", graph.op("Mul", relative, graph.constant(steepness)), *reach)


def for_gate_input(model: LCNet, block: int, layer: nn.Linear) -> tuple[Tensor, Tensor]:
    """A gate's layer for ``gate_input``: weight (O, I) and bias (O,)."""
    weight, bias = model.standardizer(block).folded(layer)
    bias += weight[:, -2] * (model.costs.floor_before(block) / model.costs.dense)
    if model.has_confidence:
        # The probe's entropy comes as sum(p * log p): its normalised entropy times -log(classes).
        weight[:, -3] /= -math.log(model.classes)
    return weight.float(), bias.float()


def kept_costs(decisions: Decisions, block: int) -> Tensor:
    """MACs that each bit of a row of decisions adds, float64 (action_size, 1); the bill is linear in executed bits."""
    size = decisions.action_size
    costs, action = torch.zeros(size, 1, dtype=torch.float64), torch.zeros(1, size)
    for bit in range(decisions.bits[block]):  # L-Net's is the first, and C-Net's cost where it is set
        before = decisions.bill(action, block)
        action[0, bit] = 1
        costs[bit] = decisions.bill(action, block) - before
    return costs
