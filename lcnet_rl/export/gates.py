"""Probe, L-Net and C-Net as ONNX nodes, with the standardising of their inputs folded into their weights."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from lcnet_rl.export.builder import FLOAT, Graph
from lcnet_rl.gates import Probe, Standardize
from lcnet_rl.model import LCNet


def linear(graph: Graph, x: str, weight: Tensor, bias: Tensor, name: str | None = None) -> str:
    """``x @ weight.T + bias``, (1, I) to (1, O)."""
    return graph.op("Gemm", x, graph.constant(weight), graph.constant(bias), transB=1, name=name)


def gate_input(graph: Graph, model: LCNet, block: int, pooled: str, spent: str, price: str) -> str:
    """``model.gate_input`` (1, C + 4), except for its standardising and the entropy's normalisation and sign."""
    probe = cast(Probe, model.probes[block]).classifier
    log_p = graph.op("LogSoftmax", linear(graph, pooled, probe.weight, probe.bias), axis=1)
    p, axes = graph.op("Exp", log_p), graph.constant([1])
    entropy = graph.op("ReduceSum", graph.op("Mul", p, log_p), axes)
    dense = graph.constant(torch.tensor([[float(model.costs.dense)]]).double())
    share = graph.op("Cast", graph.op("Div", spent, dense), to=FLOAT)
    return graph.op("Concat", pooled, graph.op("ReduceMax", p, axes), entropy, share, price, axis=1)


def folded(model: LCNet, block: int, layer: nn.Linear) -> tuple[Tensor, Tensor]:
    """A gate's layer for ``gate_input``: weight (O, C + 4) and bias (O,)."""
    standardize = cast(Standardize, model.standardizers[block])
    factor = torch.cat(((standardize.var.double() + 1e-3).rsqrt(), standardize.var.new_ones(1).double()))
    shift = torch.cat((standardize.mean.double(), standardize.mean.new_zeros(1).double()))
    weight = layer.weight.double() * factor
    bias = layer.bias.double() - weight @ shift
    # The probe's entropy comes as sum(p * log p): its normalised entropy times -log(classes).
    weight[:, -3] /= -math.log(model.classes)
    return weight.float(), bias.float()
