"""An LCNet, or its dense backbone, as an ONNX model for one image.

A block is an ``If`` on L-Net's decision; inside it C-Net decides, and further ``If`` nodes lead to the convolutions
with just the filters that are kept.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import onnx
import torch
from onnx import TensorProto, helper

import lcnet_rl
from lcnet_rl.backbones import IMAGE_SIZE, MEAN, STD, Backbone, Stem
from lcnet_rl.engine import check_trained
from lcnet_rl.engine.fold import folded, parameters
from lcnet_rl.errors import UserError
from lcnet_rl.export import gates
from lcnet_rl.export.builder import BOOL, DOUBLE, FLOAT, Graph, Type
from lcnet_rl.export.layout import BLOCKED_DOMAIN, Layout
from lcnet_rl.export.step import Place, Step, shortcut, write_exit
from lcnet_rl.macs import dense_macs
from lcnet_rl.model import LCNet

OPSET, IR_VERSION = 18, 10
FORMAT = "1"
"""Changes when a file's inputs or outputs do."""
INTERFACE = """Classifies one image, and skips what its gates drop.

Inputs: image, uint8 (1, 3, 32, 32), RGB; threshold, float32 (1, 1) in (0, 1), which a keep probability must exceed, by
default 0.5 (of several networks, the last one's only: the others must exceed 0.5); price, float32 (1, 1), the
price of compute that the gates read, by default the one stored here: trained at, the middle of the range trained for
("prices" in the metadata's "model"; gates that were trained at one price have seen no other), or found for a budget.
What a budget added to the keep logits instead, that 0.5 meets it, is the metadata's "shift".
Outputs: logits, float32 (1, classes); macs, float64 (1, 1), the multiply-accumulates of what the decisions keep, gates
included (the metadata's "dense_macs" are those of the whole network, without gates); decisions, bool (blocks, 1 +
groups), true = kept: L-Net's bit, then C-Net's, as far as there are such gates; networks behind the first one are the
last rows.
"""
DENSE_INTERFACE = """Classifies images, each with the whole network: nothing is decided.

Input: image, uint8 ({batch}, 3, 32, 32), RGB. Output: logits, float32 ({batch}, classes). An image costs the metadata's
"dense_macs", in multiply-accumulates.
"""


def dense_model(
    backbone: Backbone, batch: int = 1, classes: Sequence[str] = (), origin: Mapping[str, str] | None = None
) -> onnx.ModelProto:
    """The plain backbone: a network to deploy as it is, or what skipping is compared with.

    Its input and output are those of ``DENSE_INTERFACE``, which the file holds too.

    Args:
        backbone: what to write; it is not changed.
        batch: how many images at a time.
        classes: their names, for the metadata.
        origin: further metadata: where the network comes from.
    """
    network, graph, layout = folded(backbone), Graph("dense"), Layout()
    pooled = write_features(graph, layout, network)
    for behind in network.networks[1:]:
        pooled = graph.op("Concat", pooled, write_features(graph, layout, behind), axis=1)
    gates.linear(graph, pooled, network.head.weight, network.head.bias, name="logits")
    outputs = [("logits", (FLOAT, [batch, network.spec.classes]))]
    metadata = {**(origin or {}), "backbone": json.dumps(asdict(network.spec))}
    metadata |= described(layout, dense_macs(backbone), classes)
    return finished(graph.build([image(batch)], outputs, DENSE_INTERFACE.format(batch=batch)), metadata)


def dynamic_model(
    model: LCNet, layout: Layout, classes: Sequence[str] = (), origin: Mapping[str, str] | None = None
) -> onnx.ModelProto:
    """A network with its gates, for one image.

    Its inputs and outputs are those of ``INTERFACE``, which the file holds too.

    Args:
        model: what to write; it is not changed.
        layout: for which kernels.
        classes: their names, for the metadata.
        origin: further metadata: where the model comes from, and what was done to it.

    Raises:
        UserError: when the layout does not suit the backbone, the policy is a rival's, or the model is no trained one.
    """
    check_trained(model)
    if model.policy is not None:
        raise UserError(f"only L-Net and C-Net can be exported, and this is a policy of {model.spec.policy}")
    graph, backbone = Graph("lcnet"), folded(model.backbone)
    price = gates.price_input(graph, model, graph.constant(model.price.reshape(1, 1), "price"))
    threshold = graph.constant(torch.full((1, 1), 0.5), "threshold")
    # A keep logit exceeds the threshold's logit where its probability exceeds the threshold.
    cut = graph.op("Log", graph.op("Div", threshold, graph.op("Sub", graph.constant(1.0), threshold)))
    x = write_stem(graph, layout, backbone.stem)
    place, rows = Place(x, layout.pool(graph, x), graph.constant(torch.zeros(1, 1))), []
    everywhere = all(map(model.has_threshold, range(model.depth)))
    at_half = cut if everywhere else graph.constant(torch.zeros(1, 1))
    cuts = [cut if model.has_threshold(t) else at_half for t in range(model.depth)]
    for t, block in enumerate(backbone.own_blocks):
        place, row = Step(model, layout, block, t, place, price, cuts[t]).write(graph)
        rows.append(row)
    for t, network in enumerate(backbone.networks[1:], start=len(backbone.blocks)):
        place, row = write_network(graph, model, layout, t, network, place, price, cuts[t])
        rows.append(row)
    gates.linear(graph, place.pooled, backbone.head.weight, backbone.head.bias, name="logits")
    decisions = graph.op("Concat", *rows, axis=0)
    graph.op("Cast", decisions, to=BOOL, name="decisions")
    # Float64 holds MACs exactly, and the bill is exact.
    costs = graph.constant(torch.cat([gates.kept_costs(model.decisions, t) for t in range(model.depth)]))
    kept = graph.op("Reshape", graph.op("Cast", decisions, to=DOUBLE), graph.constant([1, -1]))
    floor = graph.constant(torch.full((1, 1), model.costs.floor, dtype=torch.float64))
    graph.op("Gemm", kept, costs, floor, name="macs")
    scalar: Type = (FLOAT, [1, 1])
    outputs: list[tuple[str, Type]] = [
        ("logits", (FLOAT, [1, model.classes])),
        ("macs", (DOUBLE, [1, 1])),
        ("decisions", (BOOL, [model.depth, model.action_size])),
    ]
    metadata = {**(origin or {}), "price": f"{float(model.price):.6g}"}
    metadata |= {"model": json.dumps(asdict(model.spec)), **described(layout, model.costs.dense, classes)}
    inputs = [image(1), ("threshold", scalar), ("price", scalar)]
    return finished(graph.build(inputs, outputs, INTERFACE), metadata)


def described(layout: Layout, macs: int, classes: Sequence[str]) -> dict[str, str]:
    """Metadata of every file: for which kernels, the whole network's MACs, and the classes' names if they are known."""
    named = {"classes": json.dumps(list(classes))} if classes else {}
    return {"layout": layout.name, "dense_macs": str(macs), **named}


def image(batch: int) -> tuple[str, Type]:
    """The input."""
    return "image", (TensorProto.UINT8, [batch, 3, IMAGE_SIZE, IMAGE_SIZE])


def write_features(graph: Graph, layout: Layout, network: Backbone) -> str:
    """The pooled features (batch, C) of a network whose BatchNorms are folded, without those behind it."""
    mirrored = network.spec.mirrored
    x = write_stem(graph, layout, network.stem, with_mirror_image(graph) if mirrored else "image")
    for block in network.own_blocks:
        hidden = layout.conv(graph, x, *parameters(block.conv1), block.stride, relu=True)
        beside = shortcut(graph, layout, block, x)
        x = layout.finish(graph, beside, hidden, *parameters(block.conv2), None, None)
        x = write_exit(graph, layout, block.exit, x)
    pooled = layout.pool(graph, x)
    if not mirrored:
        return pooled
    both = graph.op("Reshape", pooled, graph.constant([2, -1, network.channels]))
    return graph.op("ReduceMean", both, graph.constant([0]), keepdims=0)


def write_network(
    graph: Graph, model: LCNet, layout: Layout, t: int, network: Backbone, place: Place, price: str, cut: str
) -> tuple[Place, str]:
    """A whole network behind the first one as an ``If``: the place after it, and its row of decisions.

    Args:
        graph: gets the nodes.
        model: whose decision it is.
        layout: of the features.
        t: which of the model's decisions.
        network: with BatchNorm folded.
        place: before it.
        price: (1, 1).
        cut: (1, 1), the logit that a keep logit must exceed.
    """
    gate_input = gates.gate_input(graph, model, t, place.pooled, place.above, price)
    l_net = model.l_net(t)
    assert l_net is not None
    keep = gates.linear(graph, gate_input, *gates.for_gate_input(model, t, l_net.keep))

    def run(branch: Graph) -> list[str]:
        scale = gates.relu1(branch, gates.linear(branch, gate_input, *gates.for_gate_input(model, t, l_net.scale)))
        return [
            branch.op("Mul", write_features(branch, layout, network), scale),
            branch.constant(model.decisions.action_mask[t : t + 1].float()),
        ]

    def leave(branch: Graph) -> list[str]:
        return [branch.constant(torch.zeros(1, size)) for size in (network.channels, model.action_size)]

    types: list[Type] = [(FLOAT, [1, size]) for size in (network.channels, model.action_size)]
    seen, row = graph.branch(graph.op("Greater", keep, cut), run, leave, types)
    pooled = graph.op("Concat", place.pooled, seen, axis=1)
    return Place(place.x, pooled, gates.spent_above(graph, model.decisions, t, row, place.above)), row


def write_stem(graph: Graph, layout: Layout, stem: Stem, pixels: str = "image") -> str:
    """A stem whose BatchNorms are folded, with what leads to the first stage."""
    x = layout.stem(graph, normalised(graph, pixels), *parameters(stem.conv))
    if stem.stride > 1:
        x = layout.max_pool(graph, x, stem.stride)
    return write_exit(graph, layout, stem.exit, x)


def with_mirror_image(graph: Graph) -> str:
    """The input images, then these with right and left exchanged: (2 * batch, 3, H, W)."""
    starts, ends, axes, steps = (graph.constant([value]) for value in (-1, -IMAGE_SIZE - 1, 3, -1))
    return graph.op("Concat", "image", graph.op("Slice", "image", starts, ends, axes, steps), axis=0)


def normalised(graph: Graph, pixels: str) -> str:
    """An image that is called ``pixels``, float32, scaled and centred as a backbone's stem has it."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    pixels = graph.op("Cast", pixels, to=FLOAT)
    return graph.op("Add", graph.op("Mul", pixels, graph.constant(1 / (255 * std))), graph.constant(-mean / std))


def finished(graph: onnx.GraphProto, metadata: dict[str, str]) -> onnx.ModelProto:
    """A checked model."""
    domains = [helper.make_opsetid("", OPSET)]
    if any(node.domain == BLOCKED_DOMAIN for node in graph.node):
        domains.append(helper.make_opsetid(BLOCKED_DOMAIN, 1))
    model = helper.make_model(graph, opset_imports=domains, ir_version=IR_VERSION, producer_name="lcnet_rl")
    model.producer_version = lcnet_rl.__version__
    model.doc_string = graph.doc_string
    helper.set_model_props(model, {**metadata, "format": FORMAT, "opset": str(OPSET)})
    onnx.checker.check_model(model)
    return model
