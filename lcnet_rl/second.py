"""Chains: a second network behind the first, as one more layer that an image may do without; and so on with a third.

Wang et al., 2022, "Wisdom of Committees: An Overlooked Approach To Faster and More Accurate Models", arXiv 2012.01988:
a small network classifies every image, and a larger one those of which it is not sure. Here both are one residual
network: the second one's pooled features are added to what the head reads, as a block's work is added to its shortcut,
and L-Net decides image by image, by what the networks before have seen, whether it runs at all.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from lcnet_rl.backbones import Backbone, BackboneSpec, build
from lcnet_rl.errors import UserError
from lcnet_rl.model import LCNet

UNSURE = 2.0
"""Weight of a standard deviation of the probe's entropy, and minus that of its largest probability."""
RAN = 10.0
"""Weight of a standard deviation of the MACs spent, where these tell whether the network before ran: beyond doubts."""


@torch.no_grad()
def with_second(first: Backbone, second: Backbone, weight: float = 1.0, mirrored: bool = False) -> Backbone:
    """Both networks, with their weights, as one; its logits are the first one's plus ``weight`` times the second one's.

    The head has one bias, the sum of both, so that of the second one counts where it does not run, too.

    Args:
        first: whose blocks are decided one by one. Where it has a second network already, the new one comes behind it.
        second: what runs as a whole, from the image on, or not at all.
        weight: of its logits; above 1 where it is the better one, or was trained to be less sure. It also makes the
            probabilities of images that run both surer.
        mirrored: whether it sees the mirror image too, at twice the cost; for one trained with mirrored images.

    Raises:
        UserError: for a weight that is not positive, and where the networks tell different numbers of classes apart or
            the second one has another one behind it.
    """
    if not 0 < weight < math.inf:
        raise UserError(f"the second network's logits are weighted by a number above 0, got {weight}")
    if second.second is not None:
        raise UserError("what comes behind a network has none behind itself: put one there after the other")
    both = build(appended(first.spec, replace(second.spec, mirrored=mirrored)))
    parts = zip(both.networks, [*first.networks, second], strict=True)
    for ours, theirs in parts:
        ours.stem.load_state_dict(theirs.stem.state_dict())
        ours.blocks.load_state_dict(theirs.blocks.state_dict())
    both.head.weight.copy_(torch.cat((first.head.weight, weight * second.head.weight), 1))
    both.head.bias.copy_(first.head.bias + weight * second.head.bias)
    return both


def appended(first: BackboneSpec, last: BackboneSpec) -> BackboneSpec:
    """``first``, with ``last`` behind the last of its networks."""
    return replace(first, second=last if first.second is None else appended(first.second, last))


@torch.no_grad()
def start_unsure(model: LCNet) -> None:
    """Let the gates of networks behind the first start from the rule to keep what the ones before are unsure of.

    Networks that are finished know their training images too well for these images' rewards to teach the rule; other
    images do (the data set ``held-out:NAME``). A third network also starts without the images that skip the second.
    Gates that read no confidence stay as they are.
    """
    first = len(model.backbone.blocks)
    for t in range(first, model.depth if model.has_confidence else first):
        l_net, confidence = model.l_net(t), model.input_channels[t]
        assert l_net is not None
        weight = l_net.keep.weight[0]
        weight[confidence] = -UNSURE
        weight[confidence + 1] = UNSURE
        if t > first:
            weight[confidence + 2] = RAN
